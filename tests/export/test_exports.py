"""What torch's exporters and tracers make of a deployed model, and the other way round."""

import copy
import inspect
import io

import mmdet.models.dense_heads
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope
from torch import nn

from mmdet_hetconv.deploy import switch_to_deploy
from mmdet_hetconv.export.decoding import Decoding
from mmdet_hetconv.kernels import Plan, planned_convs
from mmdet_hetconv.layers import HetConv2d
from mmdet_hetconv.models.anatomy import dense_head
from mmdet_hetconv.trace.examples import check_reads_images, detect
from tests.deploy.test_fold import trained

IMAGES, OTHERS = torch.randn(2, 8, 12, 12), torch.randn(1, 8, 17, 9)


def by_export(model):
    sizes = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)
    return torch.export.export(model, (IMAGES,), dynamic_shapes=(sizes,)).module()


def by_compile(model):
    torch._dynamo.reset()
    return torch.compile(model, backend='eager', fullgraph=True)


def by_trace(model):
    return torch.jit.trace(model, (IMAGES,))


def by_torchscript_onnx(model):
    onnxruntime = pytest.importorskip('onnxruntime')
    file = io.BytesIO()
    names = dict(input_names=['x'], dynamic_axes={'x': {0: 'b', 2: 'h', 3: 'w'}})
    torch.onnx.export(model, (IMAGES,), file, dynamo=False, **names)
    session = onnxruntime.InferenceSession(file.getvalue())
    return lambda x: torch.from_numpy(session.run(None, {'x': x.numpy()})[0])


@pytest.mark.parametrize('way', [by_export, by_compile, by_trace, by_torchscript_onnx])
@pytest.mark.parametrize('arrangement', ['blocked', 'shifted', 'permuted'])
def test_a_deployed_layer_is_exported(way, arrangement):
    """On images of other sizes, before the layer has ever run."""
    torch.manual_seed(0)
    layer = HetConv2d(8, 16, 3, stride=2, padding=2, dilation=2, p=4, arrangement=arrangement)
    if arrangement == 'permuted':
        layer.input_order.copy_(torch.randperm(8))
        layer.output_order.copy_(torch.randperm(16))
    model = nn.Sequential(layer, nn.ReLU(inplace=True)).eval()
    with torch.no_grad():
        want = model(OTHERS)
        exported = way(switch_to_deploy(copy.deepcopy(model)))
        torch.testing.assert_close(exported(OTHERS), want, rtol=1e-4, atol=1e-5)


class Around(nn.Module):
    """Another form of a block between layers of the model."""

    def __init__(self, inner):
        super().__init__()
        self.first = nn.Conv2d(8, 8, 3, padding=1)
        self.inner = inner
        self.last = HetConv2d(8, 8, 3, padding=1)

    def forward(self, x):
        return self.last(self.inner(self.first(x)))


FORMS = dict(
    graph=torch.fx.symbolic_trace,
    scripted=torch.jit.script,
    traced=by_trace,
    frozen=lambda model: torch.jit.freeze(torch.jit.script(model)),
)


@pytest.mark.parametrize('precision', ['fp32', 'bf16'])
@pytest.mark.parametrize('form', FORMS)
def test_other_forms_of_modules_inside_a_model(form, precision, bfloat16_anywhere):
    torch.manual_seed(0)
    block = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
    for model in (Around(FORMS[form](trained(block))).eval(), FORMS[form](trained(block)).eval()):
        with torch.no_grad():
            want = model(OTHERS)
            deployed = switch_to_deploy(model, Plan(frozen=True), precision=precision)
            error = (deployed(OTHERS) - want).norm() / want.norm()
        assert error < (1e-5 if precision == 'fp32' else 0.03)


def test_a_graph_module_leaves_the_model_that_it_was_made_of():
    """Both hold the same layers, here one that is planned and one that is not."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(8, 8, 3, groups=groups) for groups in (1, 8)]
    model = trained(nn.Sequential(*(m for conv in layers for m in (conv, nn.BatchNorm2d(8)))))
    with torch.no_grad():
        want = model(OTHERS)
        deployed = switch_to_deploy(torch.fx.symbolic_trace(model), Plan(frozen=True))
        assert not any(isinstance(m, nn.BatchNorm2d) for m in deployed.modules())
        torch.testing.assert_close(deployed(OTHERS), want, rtol=1e-4, atol=1e-5)
        assert torch.equal(model(OTHERS), want)


# Heads of mmdet that take something else than feature maps, or give another thing.
NOT_DENSE = [
    'ATSSVLFusionHead',
    'BoxInstMaskHead',
    'CascadeRPNHead',
    'CondInstMaskHead',
    'ConditionalDETRHead',
    'DABDETRHead',
    'DDQDETRHead',
    'DETRHead',
    'DINOHead',
    'DecoupledSOLOHead',
    'DecoupledSOLOLightHead',
    'DeformableDETRHead',
    'EmbeddingRPNHead',
    'FeatureAdaption',
    'GroundingDINOHead',
    'Mask2FormerHead',
    'MaskFormerHead',
    'SOLOHead',
    'SOLOV2Head',
    'StageCascadeRPNHead',
    'YOLACTProtonet',
]


def test_which_heads_of_mmdet_are_dense():
    refused = []
    for name, kind in inspect.getmembers(mmdet.models.dense_heads, inspect.isclass):
        if inspect.isabstract(kind):
            continue
        head = kind.__new__(kind)
        nn.Module.__init__(head)
        detector = nn.Module()
        detector.bbox_head = head
        try:
            assert dense_head(detector) == ('bbox_head', head)
        except ValueError as error:
            assert f'Module: its {name} does not turn feature maps' in str(error)
            refused.append(name)
    assert refused == sorted(NOT_DENSE)


@pytest.fixture(scope='module')
def centernet():
    init_default_scope('mmdet')
    torch.manual_seed(0)
    config = dict(
        type='CenterNet',
        backbone=dict(type='ResNet', depth=18, base_channels=8),
        neck=dict(
            type='CTResNetNeck',
            in_channels=64,
            num_deconv_filters=(16, 8, 8),
            num_deconv_kernels=(4, 4, 4),
            use_dcn=False,
        ),
        bbox_head=dict(type='CenterNetHead', num_classes=2, in_channels=8, feat_channels=8),
        test_cfg=dict(topk=10, local_maximum_kernel=3, max_per_img=10),
    )
    return MODELS.build(ConfigDict(config)).eval()


def test_centernet_computes_in_int8_but_is_not_decoded_by_a_graph(centernet):
    with pytest.raises(ValueError, match='CenterNetHead decodes its outputs in a way of its own'):
        Decoding(centernet)
    images = torch.randn(1, 3, 64, 64)
    (want,) = detect(centernet, images)
    model = copy.deepcopy(centernet)
    model = switch_to_deploy(model, Plan(frozen=True), precision='int8', calibration=[images])
    (got,) = detect(model, images)
    assert any(conv.int8 for conv in planned_convs(model))
    assert len(got.pred_instances) == len(want.pred_instances) == 10


def test_a_detector_that_reads_a_text_is_named(centernet):
    model = copy.deepcopy(centernet)
    model.language_model = nn.Identity()
    for run in (check_reads_images, lambda model: detect(model, torch.zeros(1, 3, 64, 64))):
        with pytest.raises(ValueError, match='CenterNet reads a text beside the image'):
            run(model)
