"""Dense layers in all spellings, and the networks made of them."""

import copy

import pytest
import torch
from torch import nn

from mmdet_hetconv.convert import calibrate, convert_model, distil, rearrange
from mmdet_hetconv.convert.make_dense import make_dense
from mmdet_hetconv.layers import HetConv2d


def networks(**conv):
    torch.manual_seed(0)
    dense = nn.Sequential(
        nn.Conv2d(8, 16, 3, **conv), nn.ReLU(), nn.Conv2d(16, 8, 3, **conv)
    ).eval()
    het = copy.deepcopy(dense)
    convert_model(het, p=4)
    return dense, het, [torch.randn(2, 8, 12, 12) for _ in range(3)]


@pytest.mark.parametrize(
    'conv, numbers',
    [
        (dict(padding='same'), dict(padding=1)),
        (dict(padding='same', dilation=2), dict(padding=2, dilation=2)),
        (dict(padding='same', padding_mode='reflect'), dict(padding=1, padding_mode='reflect')),
        (dict(padding='valid', stride=2), dict(padding=0, stride=2)),
        (dict(padding=[1], stride=(1,), dilation=[1, 1]), dict(padding=1)),
    ],
)
def test_spellings_of_a_geometry(conv, numbers):
    """They are calibrated, rearranged and distilled as the numbers are."""
    results = []
    for way in (conv, numbers):
        dense, het, batches = networks(**way)
        assert [*calibrate(dense, het, batches)] == ['0', '2']
        arranged = copy.deepcopy(dense)
        rearrange(arranged, copy.deepcopy(het), batches, lambda model, x: model(x))
        distil(dense, het, batches, steps=2)
        with torch.no_grad():
            results.append(het(batches[0]))
    torch.testing.assert_close(results[0], results[1])


@pytest.mark.parametrize('value', [[1, 2, 3], ()])
@pytest.mark.parametrize('key', ['kernel_size', 'stride', 'padding', 'dilation'])
def test_what_is_neither_one_number_nor_two(key, value):
    arguments = {'kernel_size': 3, key: value}
    with pytest.raises(ValueError, match='is neither one number nor two'):
        HetConv2d(8, 8, **arguments)


def test_passes_of_both_networks_run_without_autocast():
    dense, het, batches = networks()
    seen = []
    for model in (dense, het):
        model[0].register_forward_hook(lambda _, args, y: seen.append(y.dtype))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        calibrate(dense, het, batches)
    assert set(seen) == {torch.float32}


def test_a_layer_in_two_places_is_made_dense_once():
    layer = HetConv2d(8, 8, 3, padding=1, p=2)
    layer.grouped.bias.requires_grad_(False)
    model = nn.Sequential(layer, nn.ReLU(), layer)
    model.twin = layer
    dense = make_dense(model)
    assert type(dense[0]) is nn.Conv2d
    assert dense[2] is dense[0] and dense.twin is dense[0]
    assert dense[0].weight.requires_grad and not dense[0].bias.requires_grad
    x = torch.randn(1, 8, 5, 5)
    torch.testing.assert_close(dense[0](x), layer(x))
    alone = make_dense(layer)
    assert type(alone) is nn.Conv2d
    torch.testing.assert_close(alone(x), layer(x))
