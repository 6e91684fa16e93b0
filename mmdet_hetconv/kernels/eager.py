"""Candidates of public torch operators only: they run everywhere."""

import torch.nn.functional as F
from torch import Tensor

from .candidate import LAYOUTS, Candidate, crash, finish
from .weights import ConvWeights


class PackedDense(Candidate):
    """The dense convolution of the same function: never slower than dense."""

    dense = True

    @classmethod
    def why_not(cls, weights: ConvWeights, x: Tensor) -> str | None:
        return crash(weights, x) if cls.layout == 'nhwc' else None

    def __init__(self, weights: ConvWeights, x: Tensor):
        super().__init__(weights, x)
        weight, self.bias = weights.ordered_dense()
        self.weight = weight.contiguous(memory_format=LAYOUTS[self.layout])

    def compute(self, x: Tensor, residual: Tensor | None, relu: bool) -> Tensor:
        w = self.weights
        y = F.conv2d(x, self.weight, self.bias, w.stride, w.padding, w.dilation)
        return finish(y, residual, relu)

    def prepared(self) -> list[Tensor]:
        return [self.weight]


class PackedDenseNCHW(PackedDense):
    name, layout = 'dense_nchw', 'nchw'


class PackedDenseNHWC(PackedDense):
    name, layout = 'dense_nhwc', 'nhwc'


class TwoBranch(Candidate):
    """A grouped convolution and a 1 x 1 that is added to it in place."""

    @classmethod
    def why_not(cls, weights: ConvWeights, x: Tensor) -> str | None:
        if weights.p == 1:
            return 'p=1 has one branch'
        return crash(weights, x) if cls.layout == 'nhwc' else None

    def __init__(self, weights: ConvWeights, x: Tensor):
        super().__init__(weights, x)
        self.bias = weights.typed_bias
        self.grouped, self.point = (
            branch.contiguous(memory_format=LAYOUTS[self.layout]) for branch in weights.branches()
        )

    def compute(self, x: Tensor, residual: Tensor | None, relu: bool) -> Tensor:
        w = self.weights
        x = w.permute_input(x)
        y = F.conv2d(x, self.grouped, self.bias, w.stride, w.padding, w.dilation, w.p)
        y += self.pointwise(x)
        return finish(w.permute_output(y), residual, relu)

    def pointwise(self, x: Tensor) -> Tensor:
        """The 1 x 1 branch, at the centres of the kernels."""
        top, left = (max(0, i) for i in self.weights.centre_offset)
        x = x[..., top : x.shape[-2] - top, left : x.shape[-1] - left]
        padding = tuple(max(0, -i) for i in self.weights.centre_offset)
        return F.conv2d(x, self.point, None, self.weights.stride, padding)

    def prepared(self) -> list[Tensor]:
        return [self.grouped, self.point]


class TwoBranchNCHW(TwoBranch):
    name, layout = 'two_branch_nchw', 'nchw'


class TwoBranchNHWC(TwoBranch):
    name, layout = 'two_branch_nhwc', 'nhwc'
