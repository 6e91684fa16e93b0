"""Converted filters in front of a batch norm get the norm of the dense ones.

A batch norm takes the length out of a filter, but training turns a filter w
by an angle that goes with learning rate / |w|^2 (van Laarhoven, "L2
Regularization versus Batch and Weight Normalization", 2017). Weights of least
squares are up to four times as long as those they stand for, so at a usual
learning rate they would hardly learn.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ...layers import HetConv2d
from .norms import running_statistics

# Times a batch norm's eps. At a smaller variance eps changes the outputs.
LEAST_VARIANCE = 100


@torch.no_grad()
def rescale(conv: nn.Conv2d, layer: HetConv2d, norms: Sequence[_BatchNorm]) -> None:
    """Scale a layer's weights to the length of the dense ones, in place.

    The norms' statistics follow, so in eval mode they put out what they did.
    Filters whose outputs would vary too little for a norm's eps are scaled
    less, or not at all.

    Args:
        conv: the dense convolution.
        norms: batch norms; each takes outputs of this layer only, and no
            output goes anywhere else.
    """
    weights = [layer.grouped.weight]
    if layer.pointwise is not None:
        weights.append(layer.pointwise.weight)
    length = torch.stack([weight.norm() for weight in weights]).norm()
    if length == 0:
        return
    scale = (conv.weight.norm() / length).expand(layer.out_channels)
    for norm in norms:
        _, var = running_statistics(norm)
        least = LEAST_VARIANCE * norm.eps / var
        scale = scale.maximum(least.sqrt().clamp(max=1))
    for norm in norms:
        mean, var = running_statistics(norm)
        var.copy_(scale**2 * (var + norm.eps) - norm.eps)
        mean.mul_(scale)
    own = _own_order(layer, scale)
    for weight in weights:
        weight.mul_(own[:, None, None, None])
    if layer.grouped.bias is not None:
        layer.grouped.bias.mul_(own)


def _own_order(layer: HetConv2d, values: Tensor) -> Tensor:
    """Values of the outputs (N,) in the order of the layer's filters."""
    if layer.output_order is None:
        return values
    return values[layer.output_order.argsort()]
