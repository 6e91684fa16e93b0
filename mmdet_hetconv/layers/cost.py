"""Closed forms for what a convolution layer costs per output pixel.

*Exact* is the definition's count, Kh Kw M/p + M - M/p multiply-adds (MACs)
for each of the N values of an output pixel. *Executed* is what F.conv2d is
given to do: the two-branch form multiplies the zeros of the own blocks of
the 1 x 1 weight too, N M/p more.
"""

import math

from torch import nn

from .functional import taps_per_filter
from .group_pointwise import GroupPointwiseConv2d, group_pointwise_taps
from .hetconv import HetConv2d

Convolution = nn.Conv2d | HetConv2d | GroupPointwiseConv2d
CONVOLUTIONS = (nn.Conv2d, HetConv2d, GroupPointwiseConv2d)


def dense_macs_per_pixel(conv: Convolution) -> int:
    """MACs per output pixel of the convolution that `conv` stands for."""
    return conv.out_channels * (conv.in_channels // conv.groups) * math.prod(conv.kernel_size)


def macs_per_pixel(conv: Convolution, executed: bool = False) -> int:
    """MACs per output pixel of one of CONVOLUTIONS.

    For a strided GroupPointwiseConv2d too: its group-wise part strides, and
    both parts have the size of the output.

    Args:
        conv (Convolution): the layer.
        executed (bool): what F.conv2d is given instead of the exact count.

    Raises:
        TypeError: another kind of module.
    """
    if isinstance(conv, HetConv2d):
        taps = taps_per_filter(conv.in_channels, conv.kernel_size, conv.p)
        if executed and conv.p > 1:
            taps += conv.in_channels // conv.p
        return conv.out_channels * taps
    if isinstance(conv, GroupPointwiseConv2d):
        return group_pointwise_taps(
            conv.in_channels, conv.out_channels, conv.kernel_size, conv.groupwise.groups
        )
    if isinstance(conv, nn.Conv2d):
        return dense_macs_per_pixel(conv)
    raise TypeError(f'no closed form for a {type(conv).__name__}')
