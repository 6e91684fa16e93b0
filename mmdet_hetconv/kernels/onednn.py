"""Candidates on oneDNN with its post-operations, for CPUs.

Bias and addition are done where the convolution writes its output, and the
weights are reordered once. torch.compile emits the same operators when it
freezes a model. They are private to torch: where they are missing or changed,
``why_not`` says so and the plan uses the others.

The ReLU is torch's: oneDNN's turns NaN into 0.
"""

import functools

import torch
from torch import Tensor

from .candidate import LAYOUTS, Candidate, crash, finish
from .weights import ConvWeights


def _convolve(
    x: Tensor, weight: Tensor, w: ConvWeights, bias: Tensor | None = None, groups: int = 1
) -> Tensor:
    return torch.ops.mkldnn._convolution_pointwise(
        x, weight, bias, w.padding, w.stride, w.dilation, groups, 'none', [], ''
    )


def _convolve_and_add(
    x: Tensor, weight: Tensor, w: ConvWeights, bias: Tensor | None, other: Tensor
) -> Tensor:
    return torch.ops.mkldnn._convolution_pointwise.binary(
        *(x, other, weight, bias, w.padding, w.stride, w.dilation, 1), *('add', 1.0, None, [], '')
    )


def _add_pointwise(y: Tensor, x: Tensor, weight: Tensor, w: ConvWeights) -> Tensor:
    """y += conv1x1(x), in place."""
    return torch.ops.mkldnn._convolution_pointwise_.binary(
        *(y, x, weight, None, (0, 0), w.stride, w.dilation, 1), *('add', 1.0, None, [], '')
    )


def _reorder(
    weight: Tensor, w: ConvWeights, x: Tensor, padding: tuple[int, int], groups: int = 1
) -> Tensor:
    return torch.ops.mkldnn._reorder_convolution_weight(
        weight, padding, w.stride, w.dilation, groups, list(x.shape)
    )


@functools.cache
def _why_unusable() -> str | None:
    """Try the private operators once, on numbers known beforehand."""
    one = ConvWeights(torch.ones(16, 16, 1, 1), None, None, (1, 1), (0, 0), (1, 1), 1)
    x = torch.ones(1, 16, 2, 2)
    try:
        weight = _reorder(one.grouped, one, x, (0, 0))
        y = _add_pointwise(_convolve(x, weight, one), -x, weight, one)
    except (AttributeError, RuntimeError, TypeError) as error:
        return f"torch's oneDNN operators cannot be used: {error}"[:200]
    if not torch.equal(y, torch.zeros_like(y)):
        return "torch's oneDNN operators return wrong numbers"
    return None


def _why_not(x: Tensor) -> str | None:
    if x.device.type != 'cpu':
        return f'oneDNN runs on the CPU, not on {x.device.type}'
    if x.dtype == torch.bfloat16:
        if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            return 'oneDNN has no bfloat16 on this processor'
    elif x.dtype != torch.float32:
        return f'float32 and bfloat16 only, not {x.dtype}'
    if not x.numel():
        return 'the input is empty'
    return _why_unusable()


class OneDNNDense(Candidate):
    """The dense convolution with bias and addition fused."""

    dense = True

    @classmethod
    def why_not(cls, weights: ConvWeights, x: Tensor) -> str | None:
        return crash(weights, x) or _why_not(x)

    def __init__(self, weights: ConvWeights, x: Tensor):
        super().__init__(weights, x)
        weight, self.bias = weights.ordered_dense()
        weight = weight.contiguous(memory_format=LAYOUTS[self.layout])
        self.weight = _reorder(weight, weights, x, weights.padding)

    def compute(self, x: Tensor, residual: Tensor | None, relu: bool) -> Tensor:
        if residual is None:
            y = _convolve(x, self.weight, self.weights, self.bias)
        else:
            y = _convolve_and_add(x, self.weight, self.weights, self.bias, residual)
        return finish(y, None, relu)

    def prepared(self) -> list[Tensor]:
        return [self.weight]


class OneDNNDenseNCHW(OneDNNDense):
    name, layout = 'onednn_dense_nchw', 'nchw'


class OneDNNDenseNHWC(OneDNNDense):
    name, layout = 'onednn_dense_nhwc', 'nhwc'


class OneDNNTwoBranch(Candidate):
    """A grouped convolution, then a 1 x 1 that adds itself."""

    name, layout = 'onednn_two_branch', 'nhwc'

    @classmethod
    def why_not(cls, weights: ConvWeights, x: Tensor) -> str | None:
        if weights.p == 1:
            return 'p=1 has one branch'
        if weights.centre_offset != (0, 0):
            return f'the centres are off by {weights.centre_offset}'
        return crash(weights, x) or _why_not(x)

    def __init__(self, weights: ConvWeights, x: Tensor):
        super().__init__(weights, x)
        grouped, point = (
            branch.contiguous(memory_format=torch.channels_last) for branch in weights.branches()
        )
        self.grouped = _reorder(grouped, weights, x, weights.padding, weights.p)
        # The 1 x 1 is not dilated, whatever the kernels are: it has one tap.
        self.point = _reorder(point, weights, x, (0, 0))

    def compute(self, x: Tensor, residual: Tensor | None, relu: bool) -> Tensor:
        w = self.weights
        x = w.permute_input(x)
        y = _convolve(x, self.grouped, w, w.typed_bias, w.p)
        added = w.permute_residual(residual)
        if added is not None:
            y += added
        y = _add_pointwise(y, x, self.point, w)
        return w.permute_output(finish(y, None, relu))

    def prepared(self) -> list[Tensor]:
        return [self.grouped, self.point]
