"""Fold batch norms into the convolutions before them.

    bn(conv(x)) = conv'(x),  w' = w g / s,  b' = (b - mean) g / s + beta

with g, beta the norm's weight and bias and s = sqrt(var + eps). In a
HetConv2d both branches are scaled.
"""

from typing import Any

import torch
from torch import Tensor, nn

from ...layers import GroupPointwiseConv2d, HetConv2d
from ...layers.cost import Convolution
from ...trace.kinds import NORMS


def can_fold(norm: Any) -> bool:
    """Whether a module is a batch norm with statistics of its own, in inference mode."""
    return type(norm) in NORMS and not norm.training and norm.running_var is not None


@torch.no_grad()
def fold(conv: Convolution, norm: Any) -> None:
    """Give a convolution the weights that do the norm's work, too."""
    scale = torch.rsqrt(norm.running_var + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight
    shift = -norm.running_mean * scale
    if norm.bias is not None:
        shift = shift + norm.bias
    if isinstance(conv, HetConv2d):
        if conv.output_order is not None:
            filters = conv.output_order.argsort()
            scale, shift = scale[filters], shift[filters]
        if conv.pointwise is not None:
            _scale(conv.pointwise, scale)
        conv = conv.grouped
    elif isinstance(conv, GroupPointwiseConv2d):
        conv = conv.pointwise
    _scale(conv, scale)
    if conv.bias is not None:
        shift = shift + conv.bias * scale
    conv.bias = nn.Parameter(shift.to(conv.weight.dtype))


def _scale(conv: nn.Conv2d, scale: Tensor) -> None:
    # Not in place: another convolution may have the same weight.
    scale = scale.to(conv.weight.dtype).view(-1, 1, 1, 1)
    conv.weight = nn.Parameter(conv.weight * scale)
