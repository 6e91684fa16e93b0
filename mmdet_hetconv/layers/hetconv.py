"""HetConv: K x K kernels on 1/p of the channels, 1 x 1 kernels on the rest.

    y[n] = sum_{m in own block of n} k[n, m] * x[m]
         + sum_{m in foreign blocks} w[n, m] x[m]  + b[n]

Source: Singh et al., "HetConv: Heterogeneous Kernel-Based Convolutions for
Deep CNNs", CVPR 2019 (arXiv 1903.04120).
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import functional
from .arrangement import Order, first_orders, take_channels, why_not_loaded
from .initialising import Initialise, draw, is_initialiser
from .projection_log import log_projection
from .shape import PADDING_MODES, PaddingMode, as_pair, check_p, numeric_padding, why_not_blocks


class ForeignPointwise(nn.Conv2d):
    """The 1 x 1 kernels of every filter on its foreign blocks.

    It holds (N, M - M/p, 1, 1) weights and convolves M channels with them.

    Shape:
        input (B, M, H, W); output (B, N, Ho, Wo).
    """

    def __init__(self, in_channels: int, out_channels: int, p: int, **kwargs: Any):
        super().__init__(in_channels - in_channels // p, out_channels, 1, bias=False, **kwargs)
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        weight = functional.expand_foreign(self.weight, self.p)
        return self._conv_forward(x, weight, None)


class HetConv2d(nn.Module):
    """Heterogeneous-kernel 2D convolution, exactly the paper's function.

    The arguments are nn.Conv2d's, in its order and meaning, and:

    Args:
        p (int): a filter has Kh x Kw kernels on 1/p of the
            channels. 1 is the standard convolution. Defaults to 4.
        arrangement (str): which channels those are. 'blocked': channel block
            b for filter block b. 'shifted': the paper's lattice,
            (channel - filter) mod p == 0. 'permuted': any, as the weights
            that are loaded have it; at first as 'blocked'. All three
            compute the same function up to a permutation of channels;
            'blocked' needs no permutation and is faster.

    Attributes:
        grouped (nn.Conv2d): the Kh x Kw kernels, groups=p, and the bias.
        pointwise (ForeignPointwise): the 1 x 1 kernels; None if p is 1.
        input_order, output_order (Tensor): buffers; x[:, input_order] has
            blocked channels, and so has the output before
            [:, output_order]. Both None if 'blocked'.

    Shape:
        input (B, M, H, W) or (M, H, W); output as nn.Conv2d's.

    Raises:
        ValueError: p < 1 or not a divisor of both channel numbers; an even
            kernel; groups other than 1; an unknown arrangement or
            padding_mode.

    A state dict may hold the dense layer's ``weight`` (and ``bias``) in place
    of this layer's: it is projected, see :func:`functional.project_dense`.

    Example:
        >>> layer = HetConv2d(64, 128, 3, padding=1, p=4)
        >>> layer(torch.rand(1, 64, 8, 8)).shape
        torch.Size([1, 128, 8, 8])
    """

    # What ConvModule of mmcv reads of a convolution.
    transposed = False
    output_padding = (0, 0)

    input_order: Tensor | None
    output_order: Tensor | None

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
        p: int = 4,
        arrangement: str = 'blocked',
    ):
        super().__init__()
        check_p(p, arrangement)
        if padding_mode not in PADDING_MODES:
            raise ValueError(
                f'HetConv: padding_mode must be one of {PADDING_MODES}, got {padding_mode!r}'
            )
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = as_pair(kernel_size)
        self.stride = as_pair(stride)
        self.dilation = as_pair(dilation)
        self.padding = numeric_padding(padding, self.stride, self.kernel_size, self.dilation)
        self.groups = groups
        self.padding_mode = padding_mode
        self.p = p
        self.arrangement = arrangement
        reason = why_not_blocks(self, p)
        if reason:
            raise ValueError(
                f'HetConv2d({in_channels}, {out_channels}, '
                f'kernel_size={self.kernel_size}, p={p}): {reason}'
            )

        # Modes other than 'zeros' pad once, before both branches.
        padded = (0, 0) if padding_mode != 'zeros' else self.padding
        # How far the first output pixel's centre lies inside the input. The
        # 1 x 1 branch has to look at the same pixel: it crops where this is
        # positive and pads where it is negative.
        centre_offset = [
            d * (k // 2) - a for k, d, a in zip(self.kernel_size, self.dilation, padded)
        ]
        self._crop = tuple(max(0, i) for i in centre_offset)

        self.grouped = nn.Conv2d(
            in_channels,
            out_channels,
            self.kernel_size,
            self.stride,
            padded,
            self.dilation,
            p,
            bias,
            device=device,
            dtype=dtype,
        )
        self.pointwise = (
            None
            if p == 1
            else ForeignPointwise(
                in_channels,
                out_channels,
                p,
                stride=self.stride,
                padding=tuple(max(0, -i) for i in centre_offset),
                device=device,
                dtype=dtype,
            )
        )
        # In the state dict, so that weights of one arrangement are never
        # taken for those of another.
        names = 'input_order', 'output_order'
        for name, order in zip(names, self._first_orders()):
            if order is not None:
                order = order.to(self.grouped.weight.device)
            self.register_buffer(name, order)
        self.reset_parameters()

    def _first_orders(self) -> tuple[Order, Order]:
        return first_orders(self.arrangement, self.in_channels, self.out_channels, self.p)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """nn.Conv2d's initialisation with the filter's true fan-in.

        The orders of channels are the first ones again, as after
        ``to_empty()`` they have to be.
        """
        buffers = self.input_order, self.output_order
        for buffer, first in zip(buffers, self._first_orders()):
            if buffer is not None and first is not None:
                buffer.copy_(first)
        fan_in = functional.taps_per_filter(self.in_channels, self.kernel_size, self.p)
        bound = 1 / math.sqrt(fan_in) if fan_in else 0
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def apply(self, fn: Initialise) -> 'HetConv2d':
        """Apply a function; mmengine's initialisers are given the filter's true fans."""
        if not is_initialiser(fn):
            return super().apply(fn)
        name = type(self).__name__
        fan_in, fan_out = (
            functional.taps_per_filter(channels, self.kernel_size, self.p)
            for channels in (self.in_channels, self.out_channels)
        )
        grouped = self.grouped
        draw(fn, name, fan_in, fan_out, grouped.weight, grouped.bias)
        if self.pointwise is not None:
            draw(fn, name, fan_in, fan_out, self.pointwise.weight)
        return self

    def forward(self, input: Tensor) -> Tensor:
        x = input
        if self.padding_mode != 'zeros':
            top, left = self.padding
            x = F.pad(x, (left, left, top, top), mode=self.padding_mode)
        if self.input_order is not None:
            x = take_channels(x, self.input_order)
        y = self.grouped(x)
        if self.pointwise is not None:
            top, left = self._crop
            x = x[..., top : x.shape[-2] - top, left : x.shape[-1] - left]
            # In place: a convolution's gradient does not need its output,
            # and a fresh sum costs as much as the 1 x 1 branch itself.
            y += self.pointwise(x)
        if self.output_order is not None:
            y = take_channels(y, self.output_order)
        return y

    def dense_weight(self) -> Tensor:
        """The dense weight that computes the same function (differentiable).

        Shape:
            returns (N, M, Kh, Kw).
        """
        weight = self.grouped.weight
        if self.pointwise is not None:
            weight = functional.merge_to_dense(weight, self.pointwise.weight, self.p)
        if self.input_order is not None and self.output_order is not None:
            # Not by [], whose gradient sorts the indices anew.
            weight = weight.index_select(0, self.output_order)
            weight = weight.index_select(1, self.input_order.argsort())
        return weight

    def dense_bias(self) -> Tensor | None:
        """The bias that goes with :meth:`dense_weight`, (N,) or None."""
        bias = self.grouped.bias
        if bias is None or self.output_order is None:
            return bias
        return bias[self.output_order]

    @torch.no_grad()
    def project(self, weight: Tensor, bias: Tensor | None = None) -> dict[str, Tensor]:
        """This layer's state dict, projected from a dense weight.

        Shape:
            weight: (N, M, Kh, Kw); bias: (N,).
        """
        state = {}
        order, place = self.input_order, self.output_order
        if order is not None and order.is_meta:
            order, place = self._first_orders()
        if order is not None and place is not None:
            state = dict(input_order=order.to(weight.device), output_order=place.to(weight.device))
            filters = state['output_order'].argsort()
            weight = weight[filters][:, state['input_order']]
            bias = None if bias is None else bias[filters]
        grouped, foreign = functional.project_dense(weight, self.p)
        state['grouped.weight'] = grouped
        if self.pointwise is not None:
            state['pointwise.weight'] = foreign
        if bias is not None:
            state['grouped.bias'] = bias
        return state

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        error_msgs = rest[-1]
        dense = state_dict.get(prefix + 'weight')
        shape = (self.out_channels, self.in_channels, *self.kernel_size)
        if dense is not None and tuple(dense.shape) != shape:
            error_msgs.append(
                f'size mismatch for {prefix}weight: the checkpoint has a '
                f'dense weight of shape {tuple(dense.shape)}, '
                f'this HetConv2d stands for {shape}'
            )
        elif dense is not None:
            del state_dict[prefix + 'weight']
            bias = state_dict.pop(prefix + 'bias', None)
            for name, value in self.project(dense, bias).items():
                state_dict[prefix + name] = value
            log_projection(prefix.rstrip('.') or 'the model', error_msgs)
        names = 'input_order', 'output_order'
        refused = False
        for name, first in zip(names, self._first_orders()):
            reason = self._take_order(name, first, state_dict, prefix)
            if reason:
                error_msgs.append(f'{prefix}{name}: {reason}')
                refused = True
        if refused:
            # Whoever goes on after the error, as mmengine does, copies nothing.
            for key in [key for key in state_dict if key.startswith(prefix)]:
                del state_dict[key]
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def _take_order(
        self, name: str, first: Order, state_dict: dict[str, Any], prefix: str
    ) -> str | None:
        """Take the channel order of a state dict, or refuse that of another arrangement.

        Returns:
            the reason, or None.
        """
        weight = state_dict.get(prefix + 'grouped.weight')
        if weight is None:
            return None
        theirs = state_dict.get(prefix + name)
        permuted = self.arrangement == 'permuted'
        if permuted and theirs is None and first is not None:
            # Weights of the 'blocked' arrangement.
            state_dict[prefix + name] = first.to(weight.device)
            return None
        return why_not_loaded(self.arrangement, first, theirs)

    def extra_repr(self) -> str:
        return (
            f'{self.in_channels}, {self.out_channels}, '
            f'kernel_size={self.kernel_size}, stride={self.stride}, '
            f'padding={self.padding}, dilation={self.dilation}, '
            f'padding_mode={self.padding_mode!r}, p={self.p}, '
            f'arrangement={self.arrangement!r}'
        )
