"""Convolutions of 8 bits by 8 bits: sums of integers, scaled at the end.

    y = input.scale * weight_scale * sum((x - input.zero) * w) + bias

with x unsigned bytes per tensor, and w from -127 to 127 with a scale per filter
(Krishnamoorthi, arXiv 1806.08342, sections 2.1 and 3.1), from -63 to 63 on a
processor with AVX2 but without VNNI. Sums are exact on every processor.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from .candidate import Candidate, finish
from .cpu.library import load_library
from .quantized_tensor import QuantizedTensor
from .weights import ConvWeights, Levels

# Of a filter's largest weight, what is tried as the largest level.
CLIPS = torch.linspace(0.5, 1.0, 26)


def quantize(x: Tensor, levels: Levels) -> Tensor:
    """The nearest levels of floats, as floats; NaN becomes the lowest."""
    q = (x * (1 / levels.scale) + levels.zero).round()
    return q.clamp_(0, 255).nan_to_num_(0.0)


def most_weight() -> int:
    """The largest level of a weight: 127, or 63 if larger ones were not exact."""
    library, _ = load_library()
    return 127 if library is None else int(library.hetconv_most_weight())


def weight_scales(rows: Tensor) -> Tensor:
    """Per filter, the scale of least squared error.

    Shape:
        rows (N, K); returns (N,), 1 for filters of zeros.
    """
    most = most_weight()
    largest = rows.abs().amax(1)
    best = torch.where(largest > 0, largest / most, 1.0)
    least = rows.new_full((len(rows),), float('inf'))
    for clip in CLIPS.tolist():
        scale = torch.where(largest > 0, clip * largest / most, 1.0)
        q = (rows / scale[:, None]).round_().clamp_(-most, most)
        error = (q * scale[:, None] - rows).square().sum(1)
        best = torch.where(error < least, scale, best)
        least = torch.minimum(error, least)
    return best


def quantize_weights(weights: ConvWeights) -> tuple[ConvWeights, Tensor]:
    """The layer with levels for weights, and their scales.

    Returns:
        ConvWeights: of float32, without a bias.
        Tensor: (N,), by filter.
    """
    most = most_weight()
    scales = weight_scales(torch.cat([t.float().flatten(1) for t in weights.tensors], 1))

    def to_levels(weight: Tensor) -> Tensor:
        return (weight.float() / scales[:, None, None, None]).round().clamp(-most, most)

    grouped = to_levels(weights.grouped)
    foreign = None if weights.foreign is None else to_levels(weights.foreign)
    return replace(weights, grouped=grouped, foreign=foreign, bias=None), scales


class Int8Candidate(Candidate):
    """One whose inputs may be bytes, or floats that it turns into some.

    Shape:
        call: x and residual may be QuantizedTensors; returns one if the layer
        has levels for its output, else float32.
    """

    layout, quantized = 'nhwc', True

    def __init__(self, weights: ConvWeights, x: Tensor):
        super().__init__(weights, x)
        assert weights.int8 is not None
        self.int8 = weights.int8
        self.levels, self.weight_scales = quantize_weights(weights)
        bias = weights.bias
        self.bias = self.weight_scales.new_zeros(()) if bias is None else bias.float()
        self.bias = self.bias.expand_as(self.weight_scales).contiguous()

    def input_levels(self, x: Tensor) -> Levels:
        return x.levels if isinstance(x, QuantizedTensor) else self.int8.input

    def give(self, y: Tensor) -> Tensor:
        """The output: bytes if there are levels for it."""
        if self.int8.output is None:
            return y
        return QuantizedTensor.of(y, self.int8.output)


class EagerInt8(Int8Candidate):
    """The same by public operators, on floats that hold the integers.

    Slower than without quantization; sums beyond 2 ** 24 are rounded.
    """

    name = 'eager_int8'

    @classmethod
    def why_not(cls, weights: ConvWeights, x: Tensor) -> str | None:
        return None

    def __init__(self, weights: ConvWeights, x: Tensor):
        super().__init__(weights, x)
        self.weight, _ = self.levels.ordered_dense()
        self.order = weights.output_order

    def __call__(self, x: Tensor, residual: Tensor | None, relu: bool) -> Tensor:
        w, levels = self.weights, self.input_levels(x)
        given = x.raw.float() if isinstance(x, QuantizedTensor) else quantize(x.float(), levels)
        y = F.conv2d(given - levels.zero, self.weight, None, w.stride, w.padding, w.dilation)
        scale, bias = self.weight_scales * levels.scale, self.bias
        if self.order is not None:
            scale, bias = scale[self.order], bias[self.order]
        y = y * scale[:, None, None] + bias[:, None, None]
        if isinstance(residual, QuantizedTensor):
            residual = residual.floats()
        y = finish(y, residual, relu)
        output = self.int8.output
        return y if output is None else self.give(quantize(y, output).to(torch.uint8))

    def prepared(self) -> list[Tensor]:
        return [self.weight]
