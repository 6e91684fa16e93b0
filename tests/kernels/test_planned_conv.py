"""A layer in its inference form, whichever candidate computes it."""

import copy

import pytest
import torch
from torch import nn

from mmdet_hetconv.kernels import Plan, PlannedConv2d, take_weights
from mmdet_hetconv.layers import HetConv2d

from .cases import CASES, build, expected


@pytest.mark.parametrize('case', CASES)
def test_layer_equals_its_inference_form(case):
    layer, x = build(case)
    deployed = PlannedConv2d(layer)
    torch.testing.assert_close(deployed(x).double(), expected(layer, x), rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize('shape', [(2, 64, 1, 1), (1, 64, 9, 11), (2, 64, 9, 10), (2, 1, 9, 11)])
def test_a_residual_of_another_shape_is_refused(shape):
    """One kernel would broadcast it, another read beyond its end."""
    layer, x = build('plain')
    assert layer(x).shape == (2, 64, 9, 11)
    with pytest.raises(ValueError, match='residual'):
        PlannedConv2d(layer)(x, torch.zeros(shape))


@pytest.mark.parametrize('shape', [(0, 32, 9, 9), (32, 9, 9)])
def test_empty_batch_and_single_image(shape):
    layer, _ = build('plain')
    x = torch.randn(shape)
    y = PlannedConv2d(layer)(x)
    assert y.shape == layer(x).shape
    torch.testing.assert_close(y, layer(x), rtol=1e-4, atol=2e-5)


def test_dense_layer_has_a_plan_too():
    layer = nn.Conv2d(3, 16, 7, 2, 3).requires_grad_(False)
    x = torch.randn(2, 3, 20, 20)
    torch.testing.assert_close(
        PlannedConv2d(layer, relu=True)(x), layer(x).relu(), rtol=1e-4, atol=2e-5
    )


def test_prepared_weights_follow_load_and_copy():
    layer, x = build('plain')
    conv = PlannedConv2d(layer)
    y = conv(x)
    assert conv.extra_bytes() > 0
    double = copy.deepcopy(conv)
    assert torch.equal(double(x), y)
    state = {k: 2 * v for k, v in conv.state_dict().items()}
    conv.load_state_dict(state)
    torch.testing.assert_close(conv(x), 2 * y, rtol=1e-4, atol=2e-5)
    assert torch.equal(double(x), y)


def test_autocast_and_half_weights():
    layer, x = build('plain')
    with torch.autocast('cpu', torch.bfloat16):
        y = PlannedConv2d(layer)(x)
    assert y.dtype == torch.bfloat16
    half = PlannedConv2d(layer).to(torch.bfloat16)(x.bfloat16())
    for got in (y, half):
        torch.testing.assert_close(got.double(), expected(layer, x), rtol=0.05, atol=0.05)


def test_input_gradient_is_the_layers():
    layer, x = build('plain')
    x.requires_grad_()
    (mine,) = torch.autograd.grad(PlannedConv2d(layer)(x).sum(), x)
    (theirs,) = torch.autograd.grad(layer(x).sum(), x)
    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=2e-5)


def test_shapes_without_an_inference_form_are_refused():
    layer = HetConv2d(8, 8, 3, padding=1, padding_mode='reflect', p=2)
    with pytest.raises(ValueError, match='reflect'):
        take_weights(layer)


def test_ever_new_sizes_do_not_fill_the_memory(monkeypatch):
    monkeypatch.setattr('mmdet_hetconv.kernels.planned_conv.MOST_SHAPES', 10)
    layer, _ = build('plain')
    conv = PlannedConv2d(layer, Plan(frozen=True))
    for size in range(3, 60):
        x = torch.randn(1, layer.in_channels, size, size)
        assert conv(x).shape == layer(x).shape
        assert len(conv._chosen) <= 10
    assert len(conv._prepared) == 1
    assert len(conv.plan.choices) == 10  # buckets: 3, 4, 6, 8, 12, 16, 24, 32, 48, 64
