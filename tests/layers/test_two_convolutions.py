"""Checkpoints of gwc(x) + pwc(x) load into HetConv2d and compute the same."""

import pytest
import torch
from torch import nn

from mmdet_hetconv.layers import HetConv2d, from_two_convolutions


class Public(nn.Module):
    """As the public implementations write it."""

    def __init__(self, channels, filters, p, names=('gwc', 'pwc'), bias=(False, False), **more):
        super().__init__()
        stride = more.get('stride', 1)
        own = nn.Conv2d(channels, filters, groups=p, bias=bias[0], **more)
        self.add_module(names[0], own)
        self.add_module(names[1], nn.Conv2d(channels, filters, 1, stride, bias=bias[1]))
        self.names = names

    def forward(self, x):
        a, b = (getattr(self, name) for name in self.names)
        return a(x) + b(x)


@pytest.mark.parametrize('bias', [(False, False), (True, True), (True, False), (False, True)])
@pytest.mark.parametrize(
    'shape',
    [
        dict(kernel_size=3, padding=1),
        dict(kernel_size=5, padding=2, stride=2),
        dict(kernel_size=3, padding=2, dilation=2),
        dict(kernel_size=(3, 1), padding=(1, 0)),
    ],
    ids=str,
)
@pytest.mark.parametrize('p', [1, 2, 4])
def test_it_computes_the_same(shape, bias, p):
    public = Public(8, 12, p, bias=bias, **shape).double()
    layer = HetConv2d(8, 12, p=p, bias=any(bias), **shape).double()
    layer.load_state_dict(from_two_convolutions(public.state_dict()))
    x = torch.randn(2, 8, 9, 11, dtype=torch.float64)
    torch.testing.assert_close(layer(x), public(x), rtol=0, atol=1e-12)


def test_layers_of_a_model_under_other_names():
    public = nn.Sequential(
        Public(4, 8, 2, ('conv3', 'conv1'), kernel_size=3, padding=1),
        nn.BatchNorm2d(8),
        nn.Sequential(Public(8, 8, 4, ('conv3', 'conv1'), (True, True), kernel_size=3, padding=1)),
    ).double()
    public.eval()
    public[1].running_var.uniform_(1, 2)
    same = nn.Sequential(
        HetConv2d(4, 8, 3, padding=1, p=2, bias=False),
        nn.BatchNorm2d(8),
        nn.Sequential(HetConv2d(8, 8, 3, padding=1, p=4)),
    ).double()
    same.eval()
    same.load_state_dict(from_two_convolutions(public.state_dict(), 'conv3', 'conv1'))
    x = torch.randn(2, 4, 7, 7, dtype=torch.float64)
    torch.testing.assert_close(same(x), public(x), rtol=0, atol=1e-12)


def test_what_is_no_such_layer_is_refused():
    with pytest.raises(ValueError, match='no layer has both gwc.weight and pwc.weight among the 2'):
        from_two_convolutions(nn.Conv2d(4, 4, 3).state_dict())
    grouped = nn.ModuleDict(
        dict(gwc=nn.Conv2d(64, 64, 3, groups=8), pwc=nn.Conv2d(64, 64, 1, groups=16))
    )
    with pytest.raises(ValueError, match=r'pwc.weight of shape \(64, 4, 1, 1\) is no full 1 x 1'):
        from_two_convolutions(grouped.state_dict())
