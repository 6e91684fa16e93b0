"""Layers over the argument grid, with their result in float64."""

import torch

from mmdet_hetconv.layers import HetConv2d

# (M, N, kernel, stride, padding, dilation, bias, p, arrangement), (B, H, W)
CASES = {
    'plain': ((32, 64, 3, 1, 1, 1, True, 4, 'blocked'), (2, 9, 11)),
    'wide': ((64, 128, 3, 1, 1, 1, True, 2, 'blocked'), (1, 5, 31)),
    'stride': ((32, 32, 3, 2, 1, 1, True, 4, 'blocked'), (2, 9, 12)),
    'strides': ((32, 48, 3, (2, 1), (0, 1), 1, True, 2, 'blocked'), (1, 9, 8)),
    'dilated': ((64, 32, 3, 1, 6, 6, False, 4, 'blocked'), (1, 13, 7)),
    'unpadded': ((32, 32, 5, 1, 0, 1, True, 2, 'blocked'), (1, 9, 7)),
    'overpadded': ((48, 96, 3, 1, 2, 1, True, 2, 'blocked'), (1, 7, 7)),
    'asymmetric': ((16, 32, (3, 1), 1, (1, 0), 1, True, 2, 'blocked'),
                   (1, 5, 40)),
    'narrow': ((32, 32, 3, 1, 1, 1, True, 32, 'blocked'), (1, 6, 6)),
    'odd blocks': ((24, 40, 3, 1, 1, 1, True, 2, 'blocked'), (1, 6, 17)),
    'shifted': ((32, 64, 3, 1, 1, 1, True, 4, 'shifted'), (2, 8, 8)),
    'one pixel': ((32, 32, 3, 1, 1, 1, True, 4, 'blocked'), (1, 1, 1)),
}  # fmt: skip


def build(name: str) -> tuple[HetConv2d, torch.Tensor]:
    """The layer in float32 and an input."""
    torch.manual_seed(0)
    arguments, (batch, height, width) = CASES[name]
    *arguments, bias, p, arrangement = arguments
    layer = HetConv2d(*arguments, 1, bias, p=p, arrangement=arrangement).requires_grad_(False)
    return layer, torch.randn(batch, layer.in_channels, height, width)


def expected(layer, x, residual=None, relu=False) -> torch.Tensor:
    """relu(conv(x) + residual) by the dense convolution in float64."""
    bias = layer.dense_bias()
    y = torch.nn.functional.conv2d(
        x.double(),
        layer.dense_weight().double(),
        None if bias is None else bias.double(),
        layer.stride,
        layer.padding,
        layer.dilation,
    )
    if residual is not None:
        y = y + residual.double()
    return y.relu() if relu else y
