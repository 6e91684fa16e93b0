"""One rule of where NaN and infinity go, in every candidate: see the docstring of kernels."""

from dataclasses import replace

import pytest
import torch

from mmdet_hetconv.kernels import CANDIDATES, take_weights
from mmdet_hetconv.kernels.int8 import quantize
from mmdet_hetconv.kernels.weights import Int8, Levels
from mmdet_hetconv.layers import HetConv2d

from .test_candidates import CPU, KNOWN

LEVELS, OUTPUT = Levels(0.02, 101), Levels(0.05, 77)
NAN, INFINITY = float('nan'), float('inf')


def case(dtype=torch.float32):
    torch.manual_seed(0)
    layer = HetConv2d(32, 32, 3, padding=1, p=2).to(dtype).requires_grad_(False)
    return layer, torch.randn(1, 32, 6, 7, dtype=dtype), torch.randn(1, 32, 6, 7, dtype=dtype)


def ready(kind, weights, x):
    reason = kind.why_not(weights, x)
    if reason:
        assert reason.startswith(KNOWN), reason
        pytest.skip(reason)
    return kind(weights, x)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize('value', [NAN, INFINITY, -INFINITY])
@pytest.mark.parametrize('kind', CPU, ids=lambda c: c.name)
def test_inputs_that_are_not_finite(kind, value, dtype):
    """Channel 0 is the first block's own and foreign to the second."""
    layer, x, residual = case(dtype)
    x[0, 0, 3, 3] = value
    compute = ready(kind, take_weights(layer), x)
    must = torch.zeros(1, 32, 6, 7, dtype=torch.bool)
    must[:, :16, 2:5, 2:5] = True
    must[:, 16:, 3, 3] = True
    may = torch.zeros_like(must)
    may[:, :, 2:5, 2:5] = True
    plain, rectified = compute(x, None, False), compute(x, residual, True)
    assert not plain.isfinite()[must].any()
    assert plain.isfinite()[~may].all() and rectified.isfinite()[~may].all()
    if value != value:
        assert plain.isnan()[must].all() and rectified.isnan()[must].all()
    # A ReLU makes zeros of negative infinities and keeps NaN.
    assert (rectified.isnan() | rectified.isposinf() | (rectified == 0))[must].all()
    assert torch.equal(rectified.isnan(), (plain + residual).isnan())


@pytest.mark.parametrize('kind', CPU, ids=lambda c: c.name)
def test_residual_bias_and_weights_of_nan(kind):
    layer, x, residual = case()
    residual[0, 5, 2, 3] = NAN
    y = ready(kind, take_weights(layer), x)(x, residual, True)
    assert torch.equal(y.isnan(), residual.isnan())
    layer.grouped.bias[3] = NAN
    y = kind(take_weights(layer), x)(x, None, True)
    assert y[:, 3].isnan().all() and y[:, :3].isfinite().all() and y[:, 4:].isfinite().all()
    layer.grouped.bias[3] = 0
    layer.grouped.weight[9, 0] = NAN
    y = kind(take_weights(layer), x)(x, None, True)
    assert y[:, 9, 1:-1, 1:-1].isnan().all() and y[:, :9].isfinite().all()


@pytest.mark.parametrize('output', [None, OUTPUT])
@pytest.mark.parametrize('kind', [c for c in CANDIDATES if c.quantized], ids=lambda c: c.name)
def test_bytes_have_the_lowest_level_for_nan(kind, output):
    layer, x, residual = case()
    lowest = x.clone()
    x[0, 0, 3, 3] = NAN
    lowest[0, 0, 3, 3] = (0 - LEVELS.zero) * LEVELS.scale
    weights = replace(take_weights(layer), int8=Int8(LEVELS, output))
    compute = ready(kind, weights, x)
    assert torch.equal(quantize(x, LEVELS), quantize(lowest, LEVELS))

    def numbers(*given):
        y = compute(*given)
        return y if output is None else y.raw

    assert torch.equal(numbers(x, None, True), numbers(lowest, None, True))
    residual[0, 5, 2, 3] = NAN
    y = numbers(x, residual, True)
    if output is None:
        assert torch.equal(y.isnan(), residual.isnan())
    else:
        assert y[0, 5, 2, 3] == 0
