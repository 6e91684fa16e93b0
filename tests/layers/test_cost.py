import pytest
import torch
from mmengine.analysis import FlopAnalyzer
from torch import nn

from mmdet_hetconv.layers import GroupPointwiseConv2d, HetConv2d
from mmdet_hetconv.layers.cost import dense_macs_per_pixel, macs_per_pixel

LAYERS = [
    nn.Conv2d(8, 12, 3, padding=1),
    nn.Conv2d(8, 12, (1, 5), groups=4),
    HetConv2d(8, 12, 3, stride=2, padding=1, p=2),
    HetConv2d(8, 12, 3, p=4, bias=False),
    HetConv2d(8, 12, (3, 5), p=1),
    HetConv2d(8, 12, 3, p=2, arrangement='shifted'),
    GroupPointwiseConv2d(8, 12, 3, stride=2, conv_groups=4),
    GroupPointwiseConv2d(8, 12, 3, padding=1, conv_groups=8),
]


@pytest.mark.parametrize('layer', LAYERS, ids=str)
def test_executed_is_what_mmengine_counts(layer):
    image = torch.zeros(1, 8, 9, 10)
    pixels = layer(image).shape[2:].numel()
    counted = FlopAnalyzer(layer, (image,)).by_operator()['conv']
    assert pixels * macs_per_pixel(layer, executed=True) == counted


@pytest.mark.parametrize('layer', LAYERS, ids=str)
def test_exact_is_the_number_of_weights(layer):
    weights = sum(p.numel() for p in layer.parameters() if p.ndim == 4)
    assert macs_per_pixel(layer) == weights


def test_dense():
    assert dense_macs_per_pixel(HetConv2d(8, 12, 3, p=4)) == 8 * 12 * 9
    assert dense_macs_per_pixel(nn.Conv2d(8, 12, 3, groups=4)) == 2 * 12 * 9


def test_the_papers_ratios():
    """R = 1/P + (1 - 1/P)/K^2 for K = 3."""
    ratios = {2: 0.5556, 4: 0.3333, 8: 0.2222, 16: 0.1667, 32: 0.1389}
    for p, ratio in ratios.items():
        layer = HetConv2d(64, 64, 3, p=p)
        share = macs_per_pixel(layer) / dense_macs_per_pixel(layer)
        assert round(share, 4) == ratio


def test_unknown_layer():
    with pytest.raises(TypeError, match='Linear'):
        macs_per_pixel(nn.Linear(2, 2))
