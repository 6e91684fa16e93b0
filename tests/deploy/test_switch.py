"""The inference form of models."""

import copy

import pytest
import torch
from mmcv.cnn import ConvModule
from mmdet.models.backbones.resnet import BasicBlock, Bottleneck
from mmdet.registry import MODELS
from torch import nn

import mmdet_hetconv  # noqa: F401
from mmdet_hetconv.deploy import switch_to_deploy
from mmdet_hetconv.kernels import Plan, PlannedConv2d, planned_convs
from mmdet_hetconv.layers import HetConv2d
from mmdet_hetconv.trace import record

from .test_fold import HET, trained


def switched(model: nn.Module, x: torch.Tensor) -> nn.Module:
    """The model's inference form, once it is the same function."""
    with torch.no_grad():
        before = model(x)
        deployed = switch_to_deploy(copy.deepcopy(model))
        after = deployed(x)
    for a, b in zip(_flat(after), _flat(before), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    return deployed


def _flat(outputs) -> list:
    if torch.is_tensor(outputs):
        return [outputs]
    return [x for part in outputs for x in _flat(part)]


def test_conv_module_takes_its_relu_in():
    model = trained(ConvModule(16, 32, 3, conv_cfg=HET, norm_cfg=dict(type='BN')))
    deployed = switched(model, torch.randn(1, 16, 6, 6))
    assert deployed.conv.relu
    assert type(deployed.activate) is nn.Identity


@pytest.mark.parametrize(
    'change',
    [
        dict(act_cfg=dict(type='LeakyReLU')),
        dict(norm_cfg=dict(type='GN', num_groups=4)),
        dict(order=('act', 'conv', 'norm'), norm_cfg=dict(type='BN')),
    ],
)
def test_conv_module_keeps_what_does_not_follow_directly(change):
    model = trained(ConvModule(32, 32, 3, conv_cfg=HET, **change))
    deployed = switched(model, torch.randn(1, 32, 6, 6))
    assert not deployed.conv.relu


def test_sequential_gives_relus_away():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(inplace=True), nn.Conv2d(8, 8, 3),
        nn.ReLU(),
    ).eval()  # fmt: skip
    deployed = switched(model, torch.randn(1, 3, 8, 8))
    assert [conv.relu for conv in planned_convs(deployed)] == [True, True]


@pytest.mark.parametrize('block', [BasicBlock, Bottleneck])
@pytest.mark.parametrize('strided', [False, True])
def test_residual_blocks_call_nothing_but_convolutions(block, strided):
    width = 16 * block.expansion
    downsample = None
    if strided:
        downsample = nn.Sequential(nn.Conv2d(width, width, 1, 2, bias=False), nn.BatchNorm2d(width))
    model = trained(
        nn.Sequential(block(width, 16, 1 + strided, downsample=downsample, conv_cfg=HET))
    )
    x = torch.randn(2, width, 8, 10)
    deployed = switched(model, x)
    assert isinstance(deployed[0], block)
    calls = record(deployed, lambda: deployed(x)).calls
    assert {type(call.target) for call in calls[:-1]} <= {PlannedConv2d, nn.Identity}
    assert all(conv.relu for name, conv in deployed[0].named_modules() if name.startswith('conv'))


def test_again_changes_nothing():
    model = nn.Sequential(HetConv2d(8, 8, 3, p=2), nn.ReLU(inplace=True))
    once = switch_to_deploy(model)
    modules = list(once.modules())
    state = {k: v.clone() for k, v in once.state_dict().items()}
    twice = switch_to_deploy(once)
    assert all(a is b for a, b in zip(twice.modules(), modules, strict=True))
    assert all(torch.equal(v, state[k]) for k, v in twice.state_dict().items())


def test_shared_layer_stays_shared_and_plan_is_one():
    conv = HetConv2d(8, 8, 3, padding=1, p=2)
    plan = Plan()
    model = switch_to_deploy(nn.ModuleList([conv, conv, nn.Conv2d(8, 8, 1)]),
                             plan)  # fmt: skip
    assert model[0] is model[1]
    assert model[0].plan is model[2].plan is plan


def test_regions_are_read_from_maps_with_the_channels_last():
    """mmcv's RoIAlign on the CPU takes any memory for channels first."""
    extractor = MODELS.build(
        dict(
            type='mmdet.SingleRoIExtractor',
            roi_layer=dict(type='RoIAlign', output_size=3),
            out_channels=8,
            featmap_strides=[4],
        )
    )
    maps = torch.randn(1, 8, 10, 12)
    regions = torch.tensor([[0.0, 3.0, 5.0, 30.0, 33.0]])
    want = extractor([maps], regions)
    last = maps.to(memory_format=torch.channels_last)
    for _ in range(2):
        switch_to_deploy(extractor)
        torch.testing.assert_close(extractor([last], regions), want)
    assert len(extractor._forward_pre_hooks) == 1


def test_single_layer_and_layers_without_a_form():
    assert isinstance(switch_to_deploy(HetConv2d(8, 8, 3, p=2)), PlannedConv2d)
    reflecting = HetConv2d(8, 8, 3, padding=1, padding_mode='reflect', p=2)
    assert switch_to_deploy(reflecting) is reflecting
    depth_wise = nn.Conv2d(8, 8, 3, groups=8)
    assert switch_to_deploy(depth_wise) is depth_wise


BACKBONES = {
    'resnet': (dict(type='ResNet', depth=18, conv_cfg=HET), 16),
    'resnet v1d': (dict(type='ResNetV1d', depth=50, conv_cfg=HET), 18),
    'vgg': (dict(type='HetVGG', depth=11, with_bn=True, num_stages=3,
                 out_indices=(1, 2)), 3),
    'ssd vgg': (dict(type='HetSSDVGG', depth=16, with_last_pool=False,
                     ceil_mode=True, out_indices=(3, 4),
                     out_feature_indices=(22, 34)), 13),
}  # fmt: skip


@pytest.mark.parametrize('name', BACKBONES)
def test_backbones(name):
    config, layers = BACKBONES[name]
    model = trained(MODELS.build(config))
    het = sum(isinstance(m, HetConv2d) for m in model.modules())
    assert het == layers
    deployed = switched(model, torch.randn(1, 3, 64, 64))
    kinds = [type(m) for m in deployed.modules()]
    assert HetConv2d not in kinds
    assert nn.BatchNorm2d not in kinds
    assert sum(m.p > 1 for m in planned_convs(deployed)) == layers


@pytest.mark.parametrize('moves_input', [False, True])
@pytest.mark.parametrize('moves_output', [False, True])
@pytest.mark.parametrize('only', ['two_branch_nchw', 'dense_nchw', None])
def test_orders_that_change_nothing_are_not_followed(moves_input, moves_output, only):
    """They stay in the checkpoint, which other weights may fill."""
    torch.manual_seed(0)
    layer = HetConv2d(8, 16, 3, padding=1, p=4, arrangement='permuted')
    for order, moves in ((layer.input_order, moves_input), (layer.output_order, moves_output)):
        order.copy_(torch.randperm(len(order)) if moves else torch.arange(len(order)))
    x = torch.randn(2, 8, 9, 7)
    want = layer(x)
    plan = Plan() if only is None else Plan(frozen=True, only=[only])
    deployed = switch_to_deploy(nn.Sequential(layer).eval(), plan)
    torch.testing.assert_close(deployed(x), want, rtol=1e-4, atol=1e-5)
    (conv,) = planned_convs(deployed)
    assert set(conv.state_dict()) >= {'input_order', 'output_order'}
    weights = conv.weights()
    assert (weights.input_order is None, weights.output_order is None) == (
        not moves_input,
        not moves_output,
    )
