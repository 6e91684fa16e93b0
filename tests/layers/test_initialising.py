"""init_cfg of mmengine on layers that consist of several convolutions."""

import math

import pytest
import torch
from mmengine.model import initialize
from torch import nn

from mmdet_hetconv.layers import HetConv2d
from mmdet_hetconv.layers.group_pointwise import GroupPointwiseConv2d

CHANNELS, FILTERS, P = 96, 64, 4
TAPS = (9 + P - 1) / P  # of a filter per input channel
FAN_IN, FAN_OUT = CHANNELS * TAPS, FILTERS * TAPS


def make(bias=True, arrangement='blocked'):
    torch.manual_seed(0)
    return HetConv2d(CHANNELS, FILTERS, 3, bias=bias, p=P, arrangement=arrangement)


@pytest.mark.parametrize(
    'init_cfg, std',
    [
        (dict(type='Kaiming'), math.sqrt(2 / FAN_OUT)),
        (dict(type='Kaiming', mode='fan_in'), math.sqrt(2 / FAN_IN)),
        (dict(type='Xavier'), math.sqrt(2 / (FAN_IN + FAN_OUT))),
        (dict(type='Caffe2Xavier'), math.sqrt(1 / FAN_IN)),
        (dict(type='Normal', std=0.01), 0.01),
        (dict(type='TruncNormal', std=0.01), 0.01),
        (dict(type='Uniform', a=-0.3, b=0.3), 0.6 / math.sqrt(12)),
    ],
    ids=lambda value: value['type'] if isinstance(value, dict) else None,
)
def test_both_branches_get_the_spread_of_the_whole_filter(init_cfg, std):
    net = nn.Sequential(make())
    bias = 0.0
    if init_cfg['type'] != 'Caffe2Xavier':  # which takes none
        bias = init_cfg['bias'] = 0.25
    initialize(net, dict(init_cfg, layer='Conv2d'))
    layer = net[0]
    for weight in (layer.grouped.weight, layer.pointwise.weight):
        assert abs(weight.mean()) < 0.05 * std
        assert float(weight.std()) == pytest.approx(std, rel=0.05)
    assert (layer.grouped.bias == bias).all()


def test_initialised_layers_keep_the_variance_as_dense_ones_do():
    """Twenty layers without batch norm, and nothing vanishes."""
    spread = {}
    for name, build in (('dense', nn.Conv2d), ('het', HetConv2d)):
        torch.manual_seed(0)
        layers = [build(32, 32, 3, padding=1) for _ in range(20)]
        net = nn.Sequential(*(m for x in layers for m in (x, nn.ReLU())))
        initialize(net, dict(type='Kaiming', layer='Conv2d'))
        with torch.no_grad():
            spread[name] = float(net(torch.randn(2, 32, 24, 24)).std())
    assert 0.3 < spread['het'] / spread['dense'] < 3


def test_what_is_for_other_layers_changes_nothing():
    layer = make()
    before = [parameter.clone() for parameter in layer.parameters()]
    initialize(nn.Sequential(layer), dict(type='Normal', layer='Linear'))
    for old, new in zip(before, layer.parameters()):
        assert torch.equal(old, new)


def test_an_override_names_the_layer():
    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.cls = make(), make()

    head = Head()
    override = dict(type='Normal', name='cls', std=0.5, bias_prob=0.01)
    cfg = dict(type='Normal', layer='Conv2d', std=0.1, override=override)
    initialize(head, cfg)
    for layer, std in ((head.body, 0.1), (head.cls, 0.5)):
        for weight in (layer.grouped.weight, layer.pointwise.weight):
            assert float(weight.std()) == pytest.approx(std, rel=0.05)
    assert (head.body.grouped.bias == 0).all()
    prior = -math.log(0.99 / 0.01)
    torch.testing.assert_close(head.cls.grouped.bias, torch.full((FILTERS,), prior))


def test_without_a_bias_and_in_another_precision():
    layer = make(bias=False, arrangement='shifted').double()
    initialize(nn.Sequential(layer), dict(type='Constant', layer='Conv2d', val=3))
    assert layer.grouped.bias is None
    for weight in layer.parameters():
        assert weight.dtype == torch.double and (weight == 3).all()


@pytest.mark.parametrize('layer', [make(), GroupPointwiseConv2d(8, 8, 3, conv_groups=4)])
def test_other_functions_see_every_module(layer):
    seen = []
    assert layer.apply(seen.append) is layer
    assert seen == [*layer.children(), layer]


@pytest.mark.parametrize('groups', [4, 96])
def test_a_group_has_its_own_fans(groups):
    layer = GroupPointwiseConv2d(96, 64, 3, conv_groups=groups)
    initialize(nn.Sequential(layer), dict(type='Kaiming', layer='Conv2d'))
    std = math.sqrt(2 / (9 * 96 / groups))
    weight = layer.groupwise.weight
    assert float(weight.std()) == pytest.approx(std, rel=0.08)
    assert len(weight.flatten().unique()) > 0.99 * weight.numel()
    std = math.sqrt(2 / 64)
    assert float(layer.pointwise.weight.std()) == pytest.approx(std, rel=0.05)
    assert (layer.pointwise.bias == 0).all()


@pytest.mark.parametrize('p', [1, P])
@pytest.mark.parametrize('layer', ['HetConv2d', ['Linear', 'HetConv2d']])
def test_an_initialiser_may_name_het_conv(layer, p):
    """The last one that is for a layer counts, as for all layers."""
    torch.manual_seed(0)
    net = nn.Sequential(HetConv2d(CHANNELS, FILTERS, 3, p=p), nn.Conv2d(CHANNELS, FILTERS, 3))
    both = dict(type='Normal', layer='Conv2d', std=0.5)
    own = dict(type='Kaiming', layer=layer, bias=0.25)
    initialize(net, [both, own])
    std = math.sqrt(2 / (FILTERS * (9 + p - 1) / p))
    branches = [net[0].grouped, net[0].pointwise]
    for branch in branches[: 2 if p > 1 else 1]:
        assert float(branch.weight.std()) == pytest.approx(std, rel=0.05)
    assert (net[0].grouped.bias == 0.25).all()
    assert float(net[1].weight.std()) == pytest.approx(0.5, rel=0.05)
    assert (net[1].bias == 0).all()


def test_an_override_may_follow_the_name_of_het_conv():
    net = nn.Sequential(make(), make())
    override = dict(type='Constant', name='1', val=2)
    cfg = dict(type='Normal', layer='HetConv2d', std=0.1, override=override)
    initialize(net, cfg)
    assert float(net[0].grouped.weight.std()) == pytest.approx(0.1, rel=0.05)
    assert (net[1].grouped.weight == 2).all()
    assert (net[1].pointwise.weight == 2).all()


def test_an_initialiser_may_name_the_rivals():
    torch.manual_seed(0)
    net = nn.Sequential(GroupPointwiseConv2d(96, 64, 3, conv_groups=4))
    cfg = dict(type='Kaiming', layer='GroupPointwiseConv2d', bias=0.25)
    initialize(net, cfg)
    for conv, fan_out in ((net[0].groupwise, 9 * 24), (net[0].pointwise, 64)):
        std = math.sqrt(2 / fan_out)
        assert float(conv.weight.std()) == pytest.approx(std, rel=0.05)
    assert (net[0].pointwise.bias == 0.25).all()
