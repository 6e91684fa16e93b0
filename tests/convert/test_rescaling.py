"""Lengths of the filters in front of batch norms."""

import copy

import pytest
import torch
from torch import nn

from mmdet_hetconv.convert.calibration.rescaling import LEAST_VARIANCE, rescale
from mmdet_hetconv.layers import HetConv2d


def make(arrangement, bias=True):
    torch.manual_seed(0)
    dense = nn.Conv2d(8, 16, 3, bias=bias)
    layer = HetConv2d(8, 16, 3, p=4, bias=bias, arrangement=arrangement)
    if arrangement == 'permuted':
        layer.input_order.copy_(torch.randperm(8))
        layer.output_order.copy_(torch.randperm(16))
    with torch.no_grad():
        for weight in layer.parameters():
            weight.mul_(3)
    norm = nn.BatchNorm2d(16).eval()
    norm.running_mean.copy_(torch.randn(16))
    norm.running_var.copy_(torch.rand(16) + 0.5)
    return dense, layer, norm


@pytest.mark.parametrize('arrangement', ['blocked', 'shifted', 'permuted'])
@pytest.mark.parametrize('bias', [True, False])
def test_weights_have_the_dense_length_and_the_outputs_stay(arrangement, bias):
    dense, layer, norm = make(arrangement, bias)
    norm.running_var[::3] = 1e-4  # each third filter is scaled less
    x = torch.randn(2, 8, 6, 6)
    before = layer.dense_weight().flatten(1).norm(dim=1)
    expected = norm(layer(x))
    rescale(dense, layer, [norm])
    torch.testing.assert_close(norm(layer(x)), expected, rtol=1e-4, atol=1e-4)
    scale = layer.dense_weight().flatten(1).norm(dim=1) / before
    ratio = dense.weight.norm() / before.norm()
    assert ratio < 0.8
    torch.testing.assert_close(scale[1::3], ratio.expand(5))
    torch.testing.assert_close(scale[::3], torch.ones(6))


def test_all_norms_of_a_shared_layer_follow():
    dense, layer, norm = make('blocked')
    other = copy.deepcopy(norm)
    other.running_var.mul_(0.01)
    x = torch.randn(2, 8, 6, 6)
    expected = [n(layer(x)) for n in (norm, other)]
    rescale(dense, layer, [norm, other])
    for n, y in zip((norm, other), expected):
        torch.testing.assert_close(n(layer(x)), y, rtol=1e-4, atol=1e-4)


def test_variances_stay_above_eps():
    dense, layer, norm = make('blocked')
    norm.running_var.copy_(norm.eps * 10 ** torch.linspace(-8, 8, 16))
    var = norm.running_var.clone()
    rescale(dense, layer, [norm])
    small = var <= LEAST_VARIANCE * norm.eps
    assert small.any() and not small.all()
    torch.testing.assert_close(norm.running_var[small], var[small])
    assert (norm.running_var[~small] > 0.99 * LEAST_VARIANCE * norm.eps).all()


def test_weights_of_zeros_stay():
    dense, layer, norm = make('blocked')
    with torch.no_grad():
        for weight in layer.parameters():
            weight.zero_()
    var = norm.running_var.clone()
    rescale(dense, layer, [norm])
    assert torch.equal(norm.running_var, var)
    assert not layer.dense_weight().any()
