"""The paper's tables for CIFAR-10."""

import pytest
import torch
from torch import nn

from benchmarks.cifar_models import build
from mmdet_hetconv.analysis import count_complexity
from mmdet_hetconv.layers import HetConv2d

# p: MACs and weights, millions, "exact" columns of the paper's VGG-16 table.
VGG16 = {
    1: (313.46, 14.98),
    2: (175.05, 8.44),
    4: (105.85, 5.17),
    8: (71.24, 3.54),
    16: (53.94, 2.72),
    32: (45.29, 2.31),
    64: (40.97, 2.11),
}
RESNET56 = {1: 125.49, 2: 69.91, 4: 42.12}


def weights(model) -> int:
    """Biases and batch norms left out, as in the paper."""
    return sum(p.numel() for p in model.parameters() if p.ndim > 1)


def macs(model) -> int:
    return count_complexity(model, (32, 32)).total('macs')


@pytest.mark.parametrize('p', VGG16)
def test_vgg16(p):
    model = build('vgg16', dict(type='HetConv', p=p))
    assert (round(macs(model) / 1e6, 2), round(weights(model) / 1e6, 2)) == VGG16[p]


@pytest.mark.parametrize('p', RESNET56)
def test_resnet56(p):
    model = build('resnet56', dict(type='HetConv', p=p))
    assert round(macs(model) / 1e6, 2) == RESNET56[p]


@pytest.mark.parametrize('network', ['vgg16', 'resnet56', 'mobilenet'])
@pytest.mark.parametrize(
    'conv_cfg',
    [
        None,
        dict(type='HetConv', p=4),
        dict(type='GroupPointwiseConv', conv_groups=4),
        dict(type='DepthPointwiseConv'),
    ],
    ids=str,
)
def test_every_parameter_is_trained(network, conv_cfg):
    torch.manual_seed(0)
    model = build(network, conv_cfg, num_classes=7)
    scores = model(torch.rand(2, 3, 32, 32))
    assert scores.shape == (2, 7)
    scores.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name


def test_a_pair_of_mobilenet_is_one_convolution():
    for p, largest in ((4, 4), (1024, 1024)):
        model = build('mobilenet', dict(type='HetConv', p=p))
        parts = [m.p for m in model.modules() if isinstance(m, HetConv2d)]
        assert len(parts) == 13 and max(parts) == largest
    convs = [m for m in build('mobilenet').modules() if type(m) is nn.Conv2d]
    assert len(convs) == 1 + 2 * 13


def test_unknown_network():
    with pytest.raises(ValueError, match="got 'vgg17'"):
        build('vgg17')
