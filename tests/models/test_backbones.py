import pytest
import torch
from mmcv.cnn import VGG
from mmcv.cnn.utils import fuse_conv_bn
from mmdet.models.backbones import SSDVGG, ResNet
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope
from torch import nn

from mmdet_hetconv.analysis import count_complexity
from mmdet_hetconv.layers import HetConv2d
from mmdet_hetconv.models import HetMobileNet, HetResNet, HetSSDVGG, HetVGG

RIVAL = dict(type='GroupPointwiseConv', conv_groups=4)


@pytest.fixture(autouse=True)
def one_seed():
    torch.manual_seed(0)


def het_layers(model) -> list[HetConv2d]:
    return [m for m in model.modules() if isinstance(m, HetConv2d)]


def norms(model) -> list[nn.BatchNorm2d]:
    return [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]


def shake(model):
    for norm in norms(model):
        norm.running_mean.normal_(0, 0.1)
        norm.running_var.uniform_(0.5, 1.5)


@torch.no_grad()
def outputs(model, size=64):
    model.eval()
    torch.manual_seed(1)
    maps = model(torch.rand(1, 3, size, size))
    return maps if isinstance(maps, tuple) else (maps,)


def assert_same(model, other, **kwargs):
    for a, b in zip(outputs(model), outputs(other), strict=True):
        torch.testing.assert_close(a, b, **kwargs)


TWO_STAGES = dict(depth=50, num_stages=2, strides=(1, 2), dilations=(1, 1), out_indices=(1,))
# Het class, dense class, arguments of both, heterogeneous layers.
SAME_AS = [
    (HetResNet, ResNet, dict(depth=18), 16),
    (HetResNet, ResNet, TWO_STAGES, 7),
    (HetVGG, VGG, dict(depth=11), 7),
    (HetVGG, VGG, dict(depth=16, with_bn=True), 12),
    (HetSSDVGG, SSDVGG, dict(depth=16), 13),
]


@pytest.mark.parametrize('case', SAME_AS, ids=lambda c: f'{c[0].__name__}')
def test_against_the_stock_class(case):
    het_class, dense_class, kwargs, layers = case
    dense = dense_class(**kwargs)
    shake(dense)
    for arguments in (dict(conv_cfg=None), dict(p=1)):
        same = het_class(**kwargs, **arguments)
        assert not het_layers(same)
        same.load_state_dict(dense.state_dict())
        assert_same(same, dense)

    het = het_class(**kwargs)
    assert len(het_layers(het)) == layers
    assert {layer.p for layer in het_layers(het)} == {4}
    het.load_state_dict(dense.state_dict())  # strict: no key is dropped
    again = het_class(**kwargs)
    again.load_state_dict(het.state_dict())
    assert_same(again, het, rtol=0, atol=0)
    expected = outputs(het)
    for a, b in zip(expected, outputs(fuse_conv_bn(het))):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


BACKBONES = [
    lambda **kw: HetResNet(18, **kw),
    lambda **kw: HetResNet(**TWO_STAGES, **kw),
    lambda **kw: HetVGG(11, True, **kw),
    lambda **kw: HetSSDVGG(11, out_feature_indices=(13, 24), **kw),
    lambda **kw: HetMobileNet(0.25, out_indices=(4,), **kw),
]


@pytest.mark.parametrize('build', BACKBONES)
def test_initialised_trained_and_in_the_right_mode(build):
    init_default_scope('mmdet')
    model = build()
    model.init_weights()
    for layer in het_layers(model):
        assert layer.grouped.weight.std() > 0
        assert layer.pointwise.weight.std() > 0
    assert model.train() is model and model.training
    maps = model(torch.rand(2, 3, 64, 64))
    maps = maps if isinstance(maps, tuple) else (maps,)
    sum(m.square().mean() for m in maps).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
    assert model.eval() is model and not model.training


@pytest.mark.parametrize('build', BACKBONES)
def test_rivals(build):
    model = build(conv_cfg=RIVAL)
    assert not het_layers(model)
    rivals = sum(hasattr(m, 'groupwise') for m in model.modules())
    assert rivals == len(het_layers(build()))


def test_registered():
    init_default_scope('mmdet')
    for name in ('HetResNet', 'HetVGG', 'HetSSDVGG', 'HetMobileNet'):
        assert MODELS.get(name).__name__ == name


# Published: MACs of 224 x 224 images, 10**9, at p=1 and p=4.
@pytest.mark.parametrize(
    'model,dense,het',
    [
        # with the classifier's 2.048 M, 4.089 and 2.856
        (HetResNet(50), 4.087, 2.854),
        (HetResNet(34), 3.66, 1.31),
        (HetVGG(16), 15.35, 5.17),
    ],
    ids=['ResNet-50', 'ResNet-34', 'VGG-16'],
)
def test_published_macs(model, dense, het):
    cost = count_complexity(model, (224, 224))
    digits = len(str(het).split('.')[1])
    assert round(cost.total('dense_macs') / 1e9, digits) == dense
    assert round(cost.total('macs') / 1e9, digits) == het


class TestHetResNet:
    def test_parts_by_stage(self):
        model = HetResNet(18, p=(1, 2, 4, 8))
        parts = [
            {layer.p for layer in het_layers(getattr(model, f'layer{i}'))} for i in (1, 2, 3, 4)
        ]
        assert parts == [set(), {2}, {4}, {8}]

    def test_layers_of_every_depth(self):
        for depth, layers in {18: 16, 34: 32, 50: 16, 101: 33}.items():
            with torch.device('meta'):
                assert len(het_layers(HetResNet(depth))) == layers

    def test_a_deep_stem_stays_dense(self):
        model = HetResNet(18, deep_stem=True, avg_down=True)
        assert len(het_layers(model)) == 16
        assert not het_layers(model.stem)

    def test_frozen_stages_norms_and_checkpointing(self):
        model = HetResNet(50, frozen_stages=1, norm_eval=True, with_cp=True)
        model.train()
        assert not any(n.training for n in norms(model))
        frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
        assert {name.split('.')[0] for name in frozen} == {'conv1', 'bn1', 'layer1'}
        assert 'layer1.0.conv2.pointwise.weight' in frozen
        assert all(n.training for n in norms(HetResNet(18, norm_eval=False)))
        # recomputed activations give the same gradients
        other = HetResNet(50, frozen_stages=1, norm_eval=True)
        other.load_state_dict(model.state_dict())
        image = torch.rand(1, 3, 64, 64)
        grads = []
        for m in (model, other.train()):
            m(image)[-1].mean().backward()
            grads.append(m.layer4[0].conv2.grouped.weight.grad)
        torch.testing.assert_close(*grads)


class TestHetVGG:
    def test_outputs_of_every_stage(self):
        maps = outputs(HetVGG(11, with_bn=True))
        assert [tuple(m.shape[1:]) for m in maps] == [
            (64, 32, 32),
            (128, 16, 16),
            (256, 8, 8),
            (512, 4, 4),
            (512, 2, 2),
        ]

    def test_one_map_of_stride_16(self):
        maps = outputs(HetVGG(16, out_indices=(4,), with_last_pool=False))
        assert [tuple(m.shape[1:]) for m in maps] == [(512, 4, 4)]

    def test_frozen_stages_are_frozen_before_training_begins(self):
        model = HetVGG(16, with_bn=True, frozen_stages=2)
        trained = [p.requires_grad for p in model.parameters()]
        first = 2 * 2 + 2 * 2  # convolutions with bias, norms: dense stage 1
        assert not any(trained[:first]) and trained[-1]
        # stages 1 and 2: convolutions 0, 3, 7, 10 and their norms
        for index, layer in enumerate(model.features):
            frozen = not any(p.requires_grad for p in layer.parameters())
            assert frozen == (index < 14) or not list(layer.parameters())

    def test_norm_eval(self):
        assert not any(n.training for n in norms(HetVGG(11, True).train()))
        model = HetVGG(11, True, norm_eval=False, frozen_stages=1).train()
        assert [n.training for n in norms(model)] == [False] + [True] * 7

    def test_parts_by_stage(self):
        model = HetVGG(16, p=(2, 1, 4, 8, 16))
        parts = [layer.p for layer in het_layers(model)]
        assert parts == [2] + [4] * 3 + [8] * 3 + [16] * 3


class TestHetSSDVGG:
    def test_stock_indices_and_dilation(self):
        model = HetSSDVGG(16)
        assert isinstance(model.features[22], nn.ReLU)
        assert isinstance(model.features[31], HetConv2d)
        assert model.features[31].dilation == (6, 6)
        shapes = [tuple(m.shape[1:]) for m in outputs(model, 96)]
        assert shapes == [(512, 12, 12), (1024, 6, 6)]

    def test_parts_by_stage(self):
        model = HetSSDVGG(16, p=(1, 1, 1, 2, 8))
        parts = [layer.p for layer in het_layers(model)]
        assert parts == [2] * 3 + [8] * 3 + [8]


class TestHetMobileNet:
    def test_each_pair_is_one_layer(self):
        model = HetMobileNet()
        layers = het_layers(model)
        assert [layer.p for layer in layers] == [32] + [64] * 12
        assert [layer.stride[0] for layer in layers] == ([1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1])
        shapes = [tuple(m.shape[1:]) for m in outputs(model)]
        assert shapes == [(128, 16, 16), (256, 8, 8), (512, 4, 4), (1024, 2, 2)]

    def test_p_up_to_every_channel(self):
        layers = het_layers(HetMobileNet(p=1024))
        assert all(layer.p == layer.in_channels for layer in layers)

    def test_macs_beside_mobilenet(self):
        """569 M and 4.2 M with the classifier, MobileNets, table 8."""
        own = count_complexity(HetMobileNet(conv_cfg=None), (224, 224))
        classifier = 1024 * 1000
        assert round((own.total('macs') + classifier) / 1e6) == 569
        total = own.total('parameters') + classifier + 1000
        assert round(total / 1e6, 1) == 4.2
        het = count_complexity(HetMobileNet(p=1024), (224, 224))
        assert het.total('macs') < 1.01 * own.total('macs')
        assert het.total('parameters') < own.total('parameters')

    def test_width(self):
        maps = outputs(HetMobileNet(0.5))
        assert [m.shape[1] for m in maps] == [64, 128, 256, 512]

    def test_frozen_stages_norms_and_checkpointing(self):
        kwargs = dict(frozen_stages=2, norm_eval=True)
        model = HetMobileNet(0.25, with_cp=True, **kwargs).train()
        assert not any(n.training for n in norms(model))
        trained = {n.split('.')[0] for n, p in model.named_parameters() if p.requires_grad}
        assert trained == {'layer3', 'layer4', 'layer5'}
        other = HetMobileNet(0.25, **kwargs).train()
        other.load_state_dict(model.state_dict())
        image = torch.rand(1, 3, 64, 64)
        grads = []
        for m in (model, other):
            m(image)[-1].mean().backward()
            grads.append(m.layer4[0].conv.grouped.weight.grad)
        torch.testing.assert_close(*grads)


@pytest.mark.parametrize(
    'build,message',
    [
        (lambda: HetResNet(51), r'depth=51 is not one of \(18, 34, 50'),
        (lambda: HetVGG(17), r'depth=17 is not one of \(11, 13, 16, 19\)'),
        (lambda: HetSSDVGG(12), 'depth=12 is not one of'),
        (lambda: HetResNet(18, num_stages=5), r'=5 is not in 1 ... 4'),
        (lambda: HetResNet(18, num_stages=2), r'=\(1, 2, 2, 2\) has 4 entries'),
        (lambda: HetVGG(11, dilations=(1, 2)), r'dilations=\(1, 2\) has 2'),
        (lambda: HetVGG(11, frozen_stages=6), r'=6 is not in -1 ... 5'),
        (lambda: HetVGG(11, num_stages=0), r'=0 is not in 1 ... 5'),
        (lambda: HetVGG(11, out_indices=(5,)), r'out_indices=\(5,\)'),
        (lambda: HetMobileNet(out_indices=(5,)), r'out_indices=\(5,\)'),
        (lambda: HetMobileNet(frozen_stages=6), r'=6 is not in -1 ... 5'),
        (lambda: HetResNet(18, p=(1, 4)), r'p=\(1, 4\) has 2 entries for 4'),
        (lambda: HetVGG(11, p=(4,) * 4), 'has 4 entries for 5 stages'),
        (lambda: HetSSDVGG(11, p=(4,)), 'has 1 entries for 5 stages'),
        (lambda: HetMobileNet(p=(4, 4)), 'has 2 entries for 5 stages'),
        (lambda: HetResNet(18, p=3), "nothing was converted: .*'p': 3"),
        (lambda: HetVGG(11, p=7), "nothing was converted: .*'p': 7"),
        (lambda: HetSSDVGG(11, p=7), "nothing was converted: .*'p': 7"),
        (lambda: HetMobileNet(p=7), "nothing was converted: .*'p': 7"),
        # the first stage of VGG-11 is the convolution on the image
        (lambda: HetVGG(11, p=(4, 1, 1, 1, 1)), r'\[\(3, 64\)\]'),
        (lambda: HetResNet(18, p=(4, 4, 4, 7)), "nothing .*'p': 7"),
        (lambda: HetResNet(18, p=0), 'integer >= 1, got p=0'),
        (lambda: HetMobileNet(p=0), 'integer >= 1, got p=0'),
        (lambda: HetVGG(11, p='4'), "integer >= 1, got p='4'"),
        (lambda: HetResNet(18, conv_cfg=None, p=4), 'p=4 needs a conv_cfg'),
    ],
)
def test_bad_input(build, message):
    with pytest.raises(ValueError, match=message):
        build()
