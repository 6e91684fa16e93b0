"""The paper's rivals: a group-wise or depth-wise, then a 1 x 1 convolution.

    y = pointwise(groupwise(x)),  groupwise: M -> M in G groups of K x K

with nothing in between. G = M is the depth-wise separable convolution of
MobileNet. Source: Singh et al., CVPR 2019, sections 3.3 and 3.4 ("GWC + PWC",
"DWC + PWC").
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .initialising import Initialise, draw, is_initialiser
from .shape import PaddingMode


class GroupPointwiseConv2d(nn.Module):
    """Group-wise K x K convolution followed by a 1 x 1 convolution.

    The arguments are nn.Conv2d's in its order and meaning, but for groups,
    which has to be 1, and:

    Args:
        conv_groups (int): groups of the K x K convolution; in_channels makes
            it depth-wise.

    Shape:
        input (B, M, H, W) or (M, H, W); output as nn.Conv2d's.

    Raises:
        ValueError: conv_groups does not divide in_channels; groups is not 1.

    A dense layer's weights do not load into it: the function is another one.
    """

    # What ConvModule of mmcv reads of a convolution.
    transposed = False
    output_padding = (0, 0)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] | str = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: PaddingMode = 'zeros',
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        conv_groups: int,
    ):
        super().__init__()
        if groups != 1 or conv_groups < 1 or in_channels % conv_groups:
            raise ValueError(
                f'GroupPointwiseConv2d({in_channels}, {out_channels}, '
                f'groups={groups}, conv_groups={conv_groups}): groups has to '
                'be 1 and conv_groups a divisor of in_channels'
            )
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.groups = groups
        self.groupwise = nn.Conv2d(
            in_channels,
            in_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            conv_groups,
            False,
            padding_mode,
            device=device,
            dtype=dtype,
        )
        self.pointwise = nn.Conv2d(
            in_channels, out_channels, 1, bias=bias, device=device, dtype=dtype
        )
        self.kernel_size = self.groupwise.kernel_size
        self.stride = self.groupwise.stride
        self.padding = self.groupwise.padding
        self.dilation = self.groupwise.dilation
        self.padding_mode = padding_mode

    def reset_parameters(self) -> None:
        """nn.Conv2d's initialisation of both convolutions."""
        self.groupwise.reset_parameters()
        self.pointwise.reset_parameters()

    def apply(self, fn: Initialise) -> 'GroupPointwiseConv2d':
        """nn.Module's; initialisers of mmengine see each group by itself."""
        if not is_initialiser(fn):
            return super().apply(fn)
        name = type(self).__name__
        weights = self.groupwise.weight.detach()
        for weight in weights.chunk(self.groupwise.groups):
            taps = weight[0, 0].numel()
            filters, channels = weight.shape[:2]
            draw(fn, name, channels * taps, filters * taps, weight)
        draw(
            fn,
            name,
            self.in_channels,
            self.out_channels,
            self.pointwise.weight,
            self.pointwise.bias,
        )
        return self

    def forward(self, input: Tensor) -> Tensor:
        return self.pointwise(self.groupwise(input))


class DepthPointwiseConv2d(GroupPointwiseConv2d):
    """Depth-wise K x K convolution followed by a 1 x 1 convolution.

    The arguments are nn.Conv2d's in its order and meaning, but for groups,
    which has to be 1.
    """

    def __init__(self, in_channels: int, *args: Any, **kwargs: Any):
        super().__init__(in_channels, *args, conv_groups=in_channels, **kwargs)


def group_pointwise_taps(
    in_channels: int, out_channels: int, kernel_size: Sequence[int], conv_groups: int
) -> int:
    """Weights of the layer, M M Kh Kw / G + M N (also MACs per pixel)."""
    taps = math.prod(kernel_size)
    return in_channels * (in_channels // conv_groups * taps + out_channels)
