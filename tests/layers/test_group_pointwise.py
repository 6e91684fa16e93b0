import pytest
import torch
from mmcv.cnn import ConvModule, build_conv_layer
from torch import nn

from mmdet_hetconv.layers import GroupPointwiseConv2d, group_pointwise_taps


@pytest.mark.parametrize('conv_groups', [1, 4, 8])
def test_is_the_two_convolutions_in_a_row(conv_groups):
    torch.manual_seed(0)
    layer = GroupPointwiseConv2d(8, 12, 3, stride=2, padding=1, conv_groups=conv_groups).double()
    # One dense kernel does the same: sum_j point[n, j] * group[j, m].
    group = torch.zeros(8, 8, 3, 3, dtype=torch.double)
    size = 8 // conv_groups
    for j in range(8):
        first = j // size * size
        group[j, first : first + size] = layer.groupwise.weight[j]
    point = layer.pointwise.weight[..., 0, 0]
    dense = nn.Conv2d(8, 12, 3, stride=2, padding=1).double()
    dense.weight.data = torch.einsum('nj,jmhw->nmhw', point, group).detach()
    dense.bias.data = layer.pointwise.bias.detach()
    x = torch.randn(2, 8, 7, 8, dtype=torch.double)
    torch.testing.assert_close(layer(x), dense(x))


@pytest.mark.parametrize('conv_groups', [1, 4, 16])
def test_closed_form(conv_groups):
    layer = GroupPointwiseConv2d(16, 32, (3, 5), bias=False, conv_groups=conv_groups)
    numbers = sum(weight.numel() for weight in layer.parameters())
    assert numbers == group_pointwise_taps(16, 32, (3, 5), conv_groups)
    assert numbers == 16 * 16 // conv_groups * 15 + 16 * 32


@pytest.mark.parametrize(
    'conv_cfg, groups',
    [
        (dict(type='GroupPointwiseConv'), 4),
        (dict(type='GroupPointwiseConv', conv_groups=2), 2),
        (dict(type='DepthPointwiseConv'), 16),
    ],
)
def test_is_one_line_of_config(conv_cfg, groups):
    module = ConvModule(16, 32, 3, padding=1, conv_cfg=conv_cfg)
    assert isinstance(module.conv, GroupPointwiseConv2d)
    assert module.conv.groupwise.groups == groups
    out = module(torch.randn(1, 16, 5, 5))
    assert out.shape == (1, 32, 5, 5)
    out.sum().backward()
    assert all(p.grad is not None for p in module.parameters())
    for shape in [dict(kernel_size=1), dict(kernel_size=3, groups=16)]:
        layer = build_conv_layer(conv_cfg, 16, 16, **shape)
        assert type(layer) is nn.Conv2d
    assert type(build_conv_layer(conv_cfg, 3, 64, 7)) is nn.Conv2d


def test_wrong_arguments():
    with pytest.raises(ValueError, match='conv_groups=3'):
        GroupPointwiseConv2d(8, 8, 3, conv_groups=3)
    with pytest.raises(ValueError, match='conv_groups=0'):
        build_conv_layer(dict(type='GroupPointwiseConv', conv_groups=0), 8, 8, 3)
