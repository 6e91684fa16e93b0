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
from .cpu.abi import TYPES
from .cpu.candidates import pack, why_no_tiles
from .cpu.library import load_library
from .cpu.operators import packed_dtype
from .quantized import QuantizedTensor, raw
from .weights import ConvWeights, Levels

# Products of 255 and 127 whose sum fits 32 bits.
MOST_TAPS = (2**31 - 1) // (255 * 127)
PLAIN = Levels(1.0, 0)  # of floats
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


class FusedInt8(Int8Candidate):
    """The operator fused_int8."""

    name = 'fused_int8'
    tiles = False

    @classmethod
    def why_not(cls, weights: ConvWeights, x: Tensor) -> str | None:
        if x.device.type != 'cpu':
            return f'it runs on the CPU, not on {x.device.type}'
        if raw(x).dtype not in TYPES:
            return f'it reads no {x.dtype}'
        if sum(t[0].numel() for t in weights.tensors) > MOST_TAPS:
            return 'sums of so many products do not fit 32 bits'
        return load_library()[1]

    def __init__(self, weights: ConvWeights, x: Tensor):
        super().__init__(weights, x)
        w = self.levels
        self.p, self.packed, self.panels = pack(w, packed_dtype(), self.tiles)
        self.row_sums = torch.stack([t.double().sum((1, 2, 3)) for t in w.tensors]).sum(0).int()
        # By the levels of the input: what its zero adds to each sum, and the scales.
        self._by_levels: dict[Levels, tuple[Tensor, Tensor]] = {}
        kernel_size, stride, padding, dilation = w.geometry
        self.geometry = (w.out_channels, *kernel_size, *stride, *padding, *dilation, self.p)

    def __call__(self, x: Tensor, residual: Tensor | None, relu: bool) -> Tensor:
        w, levels = self.weights, self.input_levels(x)
        if levels not in self._by_levels:
            scale = self.weight_scales * levels.scale
            self._by_levels[levels] = -levels.zero * self.row_sums, scale
        correction, scale = self._by_levels[levels]
        output = self.int8.output
        added = PLAIN
        if isinstance(residual, QuantizedTensor):
            added, residual = residual.levels, residual.raw
        elif residual is not None and residual.dtype not in TYPES:
            residual = residual.float()
        y = torch.ops.mmdet_hetconv.fused_int8.default(
            w.permute_input(raw(x)),
            self.packed,
            self.panels,
            correction,
            scale,
            self.bias,
            w.permute_residual(residual),
            (*levels, *added, *(output or PLAIN)),
            self.geometry,
            relu,
            output is not None,
            self.tiles,
        )
        return self.give(w.permute_output(y))

    def prepared(self) -> list[Tensor]:
        return [self.packed, self.panels]


class FusedInt8AMX(FusedInt8):
    """The same in AMX's tiles."""

    name, tiles = 'fused_int8_amx', True

    @classmethod
    def why_not(cls, weights: ConvWeights, x: Tensor) -> str | None:
        return super().why_not(weights, x) or why_no_tiles(weights, 1)


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
