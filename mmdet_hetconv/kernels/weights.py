"""A convolution as the inference kernels take it: folded, fixed, no grad.

    y = relu(conv(x) + bias + residual)

with conv split into its centre tap, over all channels, and the other taps,
over the own block's channels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..layers import HetConv2d, expand_foreign, merge_to_dense, take_own
from ..layers.functional import output_size


def split_centre(weight: Tensor) -> tuple[Tensor, Tensor]:
    """The centre taps, and the kernels with a zero in their place.

    Shape:
        weight: (N, C, Kh, Kw); returns (N, C, 1, 1) and (N, C, Kh, Kw).
    """
    kh, kw = weight.shape[-2:]
    y, x = kh // 2, kw // 2
    rest = weight.clone()
    rest[:, :, y, x] = 0
    return weight[:, :, y : y + 1, x : x + 1], rest


class Levels(NamedTuple):
    """What the 256 levels of 8 bits stand for: scale * (level - zero)."""

    scale: float
    zero: int


@dataclass(frozen=True)
class Int8:
    """A convolution that multiplies 8 bits by 8 bits.

    Attributes:
        input: levels for inputs that are floats.
        output: levels of the output; None if it is float32.
    """

    input: Levels
    output: Levels | None = None


@dataclass(frozen=True)
class ConvWeights:
    """Weights and geometry of one convolution.

    Attributes:
        grouped: the kernels of the own blocks, centre tap included.
        foreign: the 1 x 1 kernels of the foreign blocks; None if p is 1.
        bias: (N,) or None; keeps its dtype, several kernels add it in float32.
        input_order, output_order: HetConv2d's buffers of these names; None where
            they change nothing.
        int8: how it computes in 8 bits; None if it does not.

    Shape:
        grouped (N, M/p, Kh, Kw); foreign (N, M - M/p, 1, 1).
    """

    grouped: Tensor
    foreign: Tensor | None
    bias: Tensor | None
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    p: int
    input_order: Tensor | None = None
    output_order: Tensor | None = None
    int8: Int8 | None = None

    @property
    def in_channels(self) -> int:
        return self.grouped.shape[1] * self.p

    @property
    def out_channels(self) -> int:
        return self.grouped.shape[0]

    @property
    def kernel_size(self) -> tuple[int, int]:
        height, width = self.grouped.shape[-2:]
        return height, width

    @property
    def geometry(self) -> tuple[tuple[int, int], ...]:
        """Kernel size, stride, padding, dilation."""
        return self.kernel_size, self.stride, self.padding, self.dilation

    @property
    def tensors(self) -> list[Tensor]:
        """Grouped and foreign kernels; the former alone if p is 1."""
        return [self.grouped] if self.foreign is None else [self.grouped, self.foreign]

    @property
    def typed_bias(self) -> Tensor | None:
        """The bias in the dtype of the weights, as torch's operators want it."""
        return None if self.bias is None else self.bias.to(self.grouped.dtype)

    @property
    def centre_offset(self) -> tuple[int, int]:
        """How far the first output's centre lies inside the input."""
        y, x = (d * (k // 2) - a for k, d, a in zip(self.kernel_size, self.dilation, self.padding))
        return y, x

    def dense(self) -> Tensor:
        """The dense weight of blocked channels, (N, M, Kh, Kw)."""
        if self.foreign is None:
            return self.grouped
        return merge_to_dense(self.grouped, self.foreign, self.p)

    def ordered_dense(self) -> tuple[Tensor, Tensor | None]:
        """Dense weight and bias of the channels as they come and go."""
        weight, bias = self.dense(), self.typed_bias
        if self.input_order is not None:
            weight = weight[:, self.input_order.argsort()]
        if self.output_order is not None:
            weight = weight[self.output_order]
            bias = None if bias is None else bias[self.output_order]
        return weight, bias

    def branches(self) -> tuple[Tensor, Tensor]:
        """Grouped kernels and the 1 x 1 over all channels, of p > 1.

        Each holds half of the own block's centre taps: with a zero in either,
        an infinite input would give NaN there, 0 * inf.

        Shape:
            returns (N, M/p, Kh, Kw) and (N, M, 1, 1).
        """
        assert self.foreign is not None  # as p is not 1
        kh, kw = self.kernel_size
        grouped = self.grouped.clone()
        half = grouped[:, :, kh // 2, kw // 2].mul_(0.5)[..., None, None]
        own = torch.zeros_like(self.foreign)
        point = merge_to_dense(half, own, self.p)
        return grouped, point + expand_foreign(self.foreign, self.p)

    def merged(self, p: int) -> tuple[Tensor, Tensor]:
        """The same function as a layer of fewer, larger blocks, whose kernels hold zeros.

        For machines that are slow on narrow blocks.

        Args:
            p (int): the number of blocks, a divisor of this layer's.

        Shape:
            returns the kernels (N, M/p, Kh, Kw) with an empty centre and the
            centre (N, M, 1, 1).
        """
        centre, rest = split_centre(self.dense())
        return take_own(rest, p), centre

    def output_size(self, size: Sequence[int]) -> tuple[int, int]:
        """Height and width of the output for an input of this size."""
        return output_size(size, self.kernel_size, self.stride, self.padding, self.dilation)

    def permute_input(self, x: Tensor) -> Tensor:
        """Blocked channels from channels as they come."""
        if self.input_order is None:
            return x
        return x.index_select(1, self.input_order)

    def permute_output(self, y: Tensor) -> Tensor:
        """Channels as they go on from blocked channels."""
        if self.output_order is None:
            return y
        return y.index_select(1, self.output_order)

    def permute_residual(self, residual: Tensor | None) -> Tensor | None:
        """The inverse of :meth:`permute_output`."""
        if residual is None or self.output_order is None:
            return residual
        return residual.index_select(1, self.output_order.argsort())


def moving(order: Tensor | None) -> Tensor | None:
    """An order of channels, or None if it is the order in which they come.

    A tracer, which has no values, takes any order for one that moves channels.
    """
    if order is None or torch.compiler.is_compiling():
        return order
    return None if torch.equal(order, torch.arange(len(order), device=order.device)) else order


def take_weights(layer: Any) -> ConvWeights:
    """The weights of a HetConv2d or a nn.Conv2d without groups, as they are now.

    Raises:
        ValueError: the padding is not of zeros, or not given as numbers.
    """
    if layer.padding_mode != 'zeros' or isinstance(layer.padding, str):
        raise ValueError(
            f'{type(layer).__name__}: no inference form for padding_mode='
            f'{layer.padding_mode!r}, padding={layer.padding!r}'
        )
    heterogeneous = isinstance(layer, HetConv2d)
    holder = layer.grouped if heterogeneous else layer

    def fixed(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor.detach().clone()

    return ConvWeights(
        grouped=holder.weight.detach().clone(),
        foreign=fixed(layer.pointwise.weight) if heterogeneous else None,
        bias=fixed(holder.bias),
        stride=layer.stride,
        padding=layer.padding,
        dilation=layer.dilation,
        p=layer.p if heterogeneous else 1,
        input_order=fixed(getattr(layer, 'input_order', None)),
        output_order=fixed(getattr(layer, 'output_order', None)),
    )
