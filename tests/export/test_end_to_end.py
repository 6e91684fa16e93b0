"""Graphs from an image to boxes, against mmdet's own pipeline and decoding."""

import cv2
import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmdet.registry import MODELS
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope
from torch import nn

from mmdet_hetconv.export.decoding import Decoding, check_decoding, check_regions
from mmdet_hetconv.export.end_to_end import export_decoding, preparation
from mmdet_hetconv.export.runtimes import BACKENDS, load_graph

SCALE = torch.tensor([2.0, 1.5, 2.0, 1.5])
SHAPE = (60, 90)


def anchors(kind, **head):
    return dict(
        type=kind,
        data_preprocessor=dict(type='DetDataPreprocessor'),
        backbone=dict(type='ResNet', depth=18, base_channels=8),
        neck=dict(type='FPN', in_channels=[8, 16, 32, 64], out_channels=8, num_outs=5),
        bbox_head=dict(num_classes=3, in_channels=8, feat_channels=8, stacked_convs=1, **head),
        test_cfg=dict(
            nms_pre=50,
            min_bbox_size=2,
            score_thr=0.3,
            nms=dict(type='nms', iou_threshold=0.5),
            max_per_img=40,
        ),
    )


def ssd():
    model = Config.fromfile('configs/ssd300_het_vgg16.py').model
    model.backbone.init_cfg = None
    model.bbox_head.num_classes = 3
    return model


def two_stage(**head):
    from_file = Config.fromfile('configs/demo_faster_rcnn_het_r18.py').model
    from_file.backbone.init_cfg = None
    from_file.roi_head.bbox_head.num_classes = 3
    from_file.roi_head.bbox_head.update(head)
    return from_file


def rpn():
    model = two_stage()
    return dict(
        type='RPN',
        train_cfg=None,
        test_cfg=model.test_cfg,
        **{key: model[key] for key in ('data_preprocessor', 'backbone', 'neck', 'rpn_head')},
    )


MODELS_OF = dict(
    retinanet=lambda: anchors(
        'RetinaNet',
        type='RetinaHead',
        anchor_generator=dict(
            type='AnchorGenerator',
            octave_base_scale=4,
            scales_per_octave=3,
            ratios=[0.5, 1.0, 2.0],
            strides=[8, 16, 32, 64, 128],
        ),
    ),
    fcos=lambda: anchors('FCOS', type='FCOSHead', norm_cfg=None),
    ssd=ssd,
    faster_rcnn=two_stage,
    class_agnostic=lambda: two_stage(reg_class_agnostic=True),
    beyond_the_border=lambda: two_stage(
        bbox_coder=dict(
            type='DeltaXYWHBBoxCoder', target_stds=[0.1, 0.1, 0.2, 0.2], clip_border=False
        )
    ),
    fcos_beyond_the_border=lambda: anchors(
        'FCOS',
        type='FCOSHead',
        norm_cfg=None,
        bbox_coder=dict(type='DistancePointBBoxCoder', clip_border=False),
    ),
    rpn=rpn,
)
# Those whose graphs differ in more than a shape.
GRAPHS = ['retinanet', 'fcos', 'ssd', 'faster_rcnn']


@pytest.fixture(scope='module', params=MODELS_OF)
def case(request):
    """A detector, raw outputs of random values, and mmdet's boxes of them."""
    init_default_scope('mmdet')
    torch.manual_seed(0)
    model = MODELS.build(ConfigDict(MODELS_OF[request.param]())).eval()
    if hasattr(model, 'roi_head'):
        # Scores and offsets of a new head are all the same.
        nn.init.normal_(model.roi_head.bbox_head.fc_cls.weight, std=0.5)
        nn.init.normal_(model.roi_head.bbox_head.fc_reg.weight, std=0.2)
    features, maps = raw_outputs(model)
    meta = dict(img_shape=SHAPE, scale_factor=SCALE[:2].tolist())
    with torch.no_grad():
        if features:
            regions = model.rpn_head.predict_by_feat(*maps, batch_img_metas=[meta])
            samples = model.roi_head.predict_bbox(
                features, [meta], regions, model.roi_head.test_cfg, rescale=True
            )
        else:
            samples = model.bbox_head.predict_by_feat(*maps, batch_img_metas=[meta], rescale=True)
    return model, features, maps, samples[0]


def raw_outputs(model):
    """Features and outputs of the head, of the sizes that a small image has."""
    side = 300 if type(model.backbone).__name__ == 'HetSSDVGG' else 128
    with torch.no_grad():
        features = model.extract_feat(torch.randn(1, 3, side, side))
        two_stage = hasattr(model, 'roi_head')
        outputs = (model.rpn_head if two_stage else model.bbox_head)(features)
    maps = [[torch.randn_like(x) * 1.5 - 0.5 for x in levels] for levels in outputs]
    if type(model).__name__ == 'FCOS':
        maps[1] = [x.exp() * 10 for x in maps[1]]  # distances to the sides
    return [torch.randn_like(x) for x in features] if two_stage else [], maps


def assert_same(got, want):
    boxes, scores, labels = (torch.as_tensor(np.array(x)) for x in got)
    assert len(boxes) == len(want) > 10
    torch.testing.assert_close(scores, want.scores)
    # Equal scores have no order.
    order = torch.argsort(scores - boxes.sum(1) * 1e-7, stable=True)
    theirs = torch.argsort(want.scores - want.bboxes.sum(1) * 1e-7, stable=True)
    torch.testing.assert_close(boxes[order], want.bboxes[theirs], rtol=1e-3, atol=1e-2)
    assert torch.equal(labels[order], want.labels[theirs])


def test_boxes_are_those_of_mmdet(case):
    model, features, maps, want = case
    with torch.no_grad():
        got = Decoding(model)(features, maps, torch.tensor(SHAPE) * 1.0, SCALE)
    assert_same(got, want)


@pytest.mark.parametrize('case', GRAPHS, indirect=True)
def test_a_graph_finds_the_same_boxes(case, tmp_path):
    """In both runtimes; and none where no score is high enough."""
    pytest.importorskip('onnxscript')
    model, features, maps, want = case
    export_decoding(model, (300, 300), tmp_path / 'decoding.onnx')
    flat = [*features, *(x for levels in maps for x in levels)]
    nothing = [torch.full_like(x, -30) for x in flat]
    for run in runtimes(tmp_path / 'decoding.onnx'):
        assert_same(run([*flat, torch.tensor(SHAPE) * 1.0, SCALE]), want)
        boxes, scores, labels = run([*nothing, torch.tensor(SHAPE) * 1.0, SCALE])
        if not features:
            assert (boxes.shape, scores.shape, labels.shape) == ((0, 4), (0,), (0,))


def runtimes(path):
    """Each that is installed, as a function of the inputs in their order."""
    onnxruntime = pytest.importorskip('onnxruntime')
    session = onnxruntime.InferenceSession(path)
    names = [entry.name for entry in session.get_inputs()]
    yield lambda inputs: session.run(None, dict(zip(names, (x.numpy() for x in inputs))))
    openvino = pytest.importorskip('openvino')
    model = openvino.compile_model(path, 'CPU', dict(INFERENCE_PRECISION_HINT='f32'))
    yield lambda inputs: list(model([x.numpy() for x in inputs]).values())


@pytest.mark.parametrize(
    'scale, keep_ratio, channels, divisor, height, width',
    [
        ((100, 60), True, 3, 32, 45, 81),
        ((60, 100), True, 1, 1, 133, 50),
        ((64, 48), False, 4, 1, 31, 77),
        (80, False, 3, 32, 31, 77),
        (80, True, 3, 32, 77, 31),
        # OpenVINO turned the factor upside down, which is far from 1 here.
        ((160, 128), True, 3, 32, 33, 97),
        ((160, 128), True, 3, 32, 480, 640),
    ],
)
@pytest.mark.parametrize('backend', BACKENDS)
def test_images_are_prepared_as_by_mmdet(
    scale, keep_ratio, channels, divisor, height, width, backend, tmp_path
):
    onnx = pytest.importorskip('onnx')
    pytest.importorskip(backend)
    init_default_scope('mmdet')
    values = channels if channels < 4 else 1  # mmengine has 1 or 3, of all channels
    numbers = dict(mean=[10.0, 20, 30][:values], std=[50, 60, 70][:values])
    model = nn.Module()
    model.data_preprocessor = MODELS.build(
        dict(
            type='DetDataPreprocessor',
            bgr_to_rgb=channels == 3,
            pad_size_divisor=divisor,
            pad_value=7,
            **numbers,
        )
    )
    model.backbone = nn.Conv2d(channels, 8, 3)
    steps = [
        dict(type='Resize', scale=scale, keep_ratio=keep_ratio),
        dict(type='PackDetInputs', meta_keys=('img_shape', 'scale_factor')),
    ]
    values = np.random.default_rng(0).random((5, 6, channels), dtype=np.float32)
    image = cv2.resize(values, (width, height), interpolation=cv2.INTER_CUBIC)
    image = (image.clip(0, 1) * 255).astype(np.uint8).reshape(height, width, channels)
    shown = image[..., 0] if channels == 1 else image
    packed = Compose(steps)(dict(img=shown, img_shape=(height, width), ori_shape=(height, width)))
    batch = dict(inputs=[packed['inputs']], data_samples=[packed['data_samples']])
    want = model.data_preprocessor(batch)['inputs']
    text = preparation([dict(type='LoadImageFromFile'), *steps], model).as_text()
    graph = onnx.helper.make_model(
        onnx.parser.parse_graph(text),
        opset_imports=[onnx.helper.make_opsetid('', 18)],
        ir_version=10,
    )
    onnx.checker.check_model(graph)
    onnx.save(graph, tmp_path / 'preparation.onnx')
    got, shape, factor = load_graph(backend, tmp_path / 'preparation.onnx', 'fp32').run(image)
    sample = packed['data_samples']
    assert tuple(shape) == sample.img_shape
    np.testing.assert_allclose(factor, sample.scale_factor * 2, rtol=1e-6)
    # cv2 resizes whole numbers with 11 bits, and may round to the next one.
    got = torch.from_numpy(got.copy())
    torch.testing.assert_close(got, want, rtol=0, atol=1.01 / 50)
    assert (got - want).abs().mean() < 0.2 / 50


def test_what_a_graph_cannot_decode_or_prepare(case):
    model, *_ = case
    head = model.rpn_head if hasattr(model, 'rpn_head') else model.bbox_head
    before = head.test_cfg
    try:
        for nms in (dict(type='soft_nms', iou_threshold=0.5), dict(iou_threshold=0.5, max_num=5)):
            head.test_cfg = ConfigDict(before, nms=nms)
            with pytest.raises(ValueError, match='a graph has only nms with iou_threshold'):
                check_decoding(head)
    finally:
        head.test_cfg = before

    class OwnWay(type(head)):
        def predict_by_feat(self, *args, **kwargs):
            return []

    head.__class__, kind = OwnWay, type(head)
    try:
        with pytest.raises(ValueError, match='OwnWay decodes its outputs in a way of its own'):
            Decoding(model)
    finally:
        head.__class__ = kind
    load = dict(type='LoadImageFromFile')
    resize = dict(type='Resize', scale=(8, 8))
    for steps, message in [
        ([load], 'has no Resize with one scale'),
        ([load, resize, dict(type='mmdet.RandomFlip')], 'has RandomFlip, which the graph has not'),
        ([dict(load, imdecode_backend='tifffile'), resize], 'not read as cv2.imread does'),
        ([dict(load, to_float32=True), resize], 'not read as cv2.imread does'),
        ([load, dict(resize, interpolation='area')], "Resize has interpolation='area', a graph"),
        ([load, dict(resize, backend='pillow')], "Resize has backend='pillow', a graph"),
        ([load, dict(resize, scale=(8.0, 8))], 'not two whole numbers up to 16384'),
        ([load, dict(resize, scale=[(8, 8), (9, 9)])], 'not two whole numbers up to 16384'),
        ([load, dict(type='Resize', scale_factor=2.0)], 'has Resize, which the graph has not'),
    ]:
        with pytest.raises(ValueError, match=message):
            preparation(steps, model)


def test_roi_heads_of_other_kinds(case):
    model, features, *_ = case
    if not features:
        return
    layer = model.roi_head.bbox_roi_extractor.roi_layers[0]
    layer.pool_mode = 'max'
    try:
        with pytest.raises(ValueError, match='regions are cut out by'):
            check_regions(model.roi_head)
    finally:
        layer.pool_mode = 'avg'
