import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmdet_hetconv.convert.calibration.least_squares import (
    RIDGES,
    NormalEquations,
    fit_layer,
    read_weights,
    write_weights,
)
from mmdet_hetconv.convert.calibration.patches import sample_positions, take_outputs, take_patches
from mmdet_hetconv.layers import HetConv2d

SHAPES = [
    dict(kernel_size=3, padding=1),
    dict(kernel_size=3, stride=2, padding=1),
    dict(kernel_size=3, padding=6, dilation=6),
    dict(kernel_size=(3, 5), padding=(0, 2), stride=(2, 1)),
    dict(kernel_size=3, padding=1, padding_mode='reflect'),
    dict(kernel_size=3, padding=1, arrangement='shifted'),
]


def layer_of(p=4, channels=8, filters=12, **kwargs):
    torch.manual_seed(0)
    return HetConv2d(channels, filters, p=p, **kwargs).double()


def equations(layer, x, target):
    result = NormalEquations(layer)
    height, width = target.shape[-2:]
    positions = torch.arange(len(x) * height * width)
    patches = take_patches(layer, x, positions)
    target = take_outputs(target, positions)
    if layer.output_order is not None:
        target = target[:, layer.output_order.argsort()]
    # In two parts: the sums have to add up.
    half = len(positions) // 2
    for part in (slice(0, half), slice(half, None)):
        one = type(patches)(patches.centre[part], patches.around[part])
        result.add(one, target[part])
    return result


@pytest.mark.parametrize('p', [1, 2, 4, 8])
@pytest.mark.parametrize('arrangement', ['blocked', 'shifted'])
def test_weights_go_out_and_in(p, arrangement):
    layer = layer_of(p, 8, 16, kernel_size=(3, 5), arrangement=arrangement)
    dense = layer.dense_weight().detach().clone()
    weights = read_weights(layer)
    assert weights.shape == (p, 8 + 14 * 8 // p, 16 // p)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
        write_weights(layer, weights)
    assert torch.equal(layer.dense_weight(), dense)


@pytest.mark.parametrize('shape', SHAPES)
def test_patches_times_weights_are_the_layers_output(shape):
    layer = layer_of(**shape)
    x = torch.randn(2, 8, 15, 14, dtype=torch.double)
    with torch.no_grad():
        y = layer(x)
    positions = sample_positions(y[:, 0].numel(), 20, torch.Generator().manual_seed(1))
    assert len(positions.unique()) == 20
    patches = take_patches(layer, x, positions)
    weights = read_weights(layer)
    blocks = torch.cat(
        [
            torch.cat([patches.centre, around], 1) @ weights[b]
            for b, around in enumerate(patches.blocks(layer.p))
        ],
        dim=1,
    )
    if layer.output_order is not None:
        blocks = blocks[:, layer.output_order]
    bias = layer.dense_bias()
    expected = take_outputs(y, positions)
    torch.testing.assert_close(blocks + bias, expected)


@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('bias', [True, False])
def test_fit_equals_least_squares_by_qr(shape, bias):
    """Filter by filter, columns of an unfolded input, torch's own solver."""
    layer = layer_of(bias=bias, **shape)
    torch.manual_seed(1)
    x = torch.randn(4, 8, 13, 12, dtype=torch.double) + 0.5
    target = torch.randn_like(layer(x)) + x.mean()
    fit = fit_layer(layer, equations(layer, x, target), equations(layer, x, target), bias)
    assert fit.ridge == RIDGES[0]  # what is held out is what was fitted
    assert fit.after < fit.before

    mode = shape.get('padding_mode', 'constant').replace('zeros', 'constant')
    top, left = layer.padding
    columns = F.unfold(
        F.pad(x, (left, left, top, top), mode=mode),
        layer.kernel_size,
        layer.dilation,
        stride=layer.stride,
    )
    columns = columns.transpose(1, 2).flatten(0, 1)
    mask = (layer.dense_weight() != 0).flatten(1)
    with torch.no_grad():
        y = layer(x)
    for n in range(layer.out_channels):
        matrix = columns[:, mask[n]]
        if bias:
            ones = torch.ones(len(matrix), 1, dtype=torch.double)
            matrix = torch.cat([matrix, ones], 1)
        goal = target[:, n].flatten()
        best = torch.linalg.lstsq(matrix, goal[:, None]).solution
        torch.testing.assert_close(y[:, n].flatten(), (matrix @ best)[:, 0], rtol=1e-3, atol=1e-4)


def test_ridge_is_what_the_held_out_positions_ask_for():
    """Few noisy positions for many unknowns: no ridge would fit the noise."""
    layer = layer_of(2, 16, 4, kernel_size=3, padding=1)
    truth = nn.Conv2d(16, 4, 3, padding=1).double()
    with torch.no_grad():
        truth.weight.copy_(layer.dense_weight())
        torch.manual_seed(2)
        few = torch.randn(1, 16, 11, 10, dtype=torch.double)
        many = torch.randn(4, 16, 30, 30, dtype=torch.double)
        noisy = truth(few) + torch.randn(1, 4, 11, 10, dtype=torch.double)
        fit = fit_layer(
            layer, equations(layer, few, noisy), equations(layer, many, truth(many)), True
        )
    assert fit.positions == 110
    assert fit.unknowns == 16 + 8 * 8
    assert fit.ridge >= 1


def test_fewer_positions_than_unknowns_get_more_ridge():
    layer = layer_of(2, 16, 4, kernel_size=3, padding=1)
    x = torch.randn(1, 16, 5, 5, dtype=torch.double)
    target = torch.randn(1, 4, 5, 5, dtype=torch.double)
    same = equations(layer, x, target)
    fit = fit_layer(layer, same, equations(layer, x, target), True)
    assert fit.positions == 25 < fit.unknowns
    # Without a limit the least ridge would win: it fits what it was given.
    assert fit.ridge == 1e-2


def test_constant_input_keeps_the_weights_and_fits_the_bias():
    layer = layer_of(kernel_size=3)
    before = layer.dense_weight().detach().clone()
    x = torch.full((2, 8, 6, 6), 3.0, dtype=torch.double)
    target = torch.randn(12, dtype=torch.double).view(1, 12, 1, 1)
    target = target.expand(2, 12, 4, 4)
    fit_layer(layer, equations(layer, x, target), equations(layer, x, target), True)
    torch.testing.assert_close(layer.dense_weight(), before)
    torch.testing.assert_close(layer(x), target)


def test_memory_does_not_grow_with_positions():
    layer = layer_of(kernel_size=3, padding=1)

    def size(images):
        x = torch.randn(images, 8, 6, 6, dtype=torch.double)
        sums = vars(equations(layer, x, layer(x).detach())).values()
        return sum(v.numel() for v in sums if isinstance(v, torch.Tensor))

    assert size(1) == size(20)
