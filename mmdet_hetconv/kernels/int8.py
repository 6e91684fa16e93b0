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

from .candidate import Candidate, empty_output, finish
from .cpu.library import load_library
from .cpu.operators import TYPES, Format, Geometry, call, merge_blocks, pack_panels
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
    branches = [t.float() for t in (weights.grouped, weights.foreign) if t is not None]
    scales = weight_scales(torch.cat([t.flatten(1) for t in branches], 1))
    most = most_weight()
    levels = [(t / scales[:, None, None, None]).round().clamp(-most, most) for t in branches]
    grouped, foreign = (*levels, None)[:2]
    return replace(weights, grouped=grouped, foreign=foreign, bias=None), scales


# Of 255 levels by 127, whose sum fits 32 bits.
MOST_TAPS = (2**31 - 1) // (255 * 127)


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


def _raw(x: Tensor) -> Tensor:
    return x.raw if isinstance(x, QuantizedTensor) else x


class FusedInt8(Int8Candidate):
    """csrc/fused_cpu.cpp; floats become bytes where the input is packed."""

    name = 'fused_int8'

    @classmethod
    def why_not(cls, weights: ConvWeights, x: Tensor) -> str | None:
        if x.device.type != 'cpu':
            return f'it runs on the CPU, not on {x.device.type}'
        if not isinstance(x, QuantizedTensor) and x.dtype not in TYPES:
            return f'it reads no {x.dtype}'
        parts = [t for t in (weights.grouped, weights.foreign) if t is not None]
        if sum(t[0].numel() for t in parts) > MOST_TAPS:
            return 'sums of so many products do not fit 32 bits'
        return load_library()[1]

    def __init__(self, weights: ConvWeights, x: Tensor):
        super().__init__(weights, x)
        library, reason = load_library()
        if library is None:
            raise RuntimeError(reason)
        w = self.levels
        self.per_word = library.hetconv_bytes_per_word()
        self.p = merge_blocks(w.out_channels, w.p, w.in_channels, self.per_word)
        grouped, centre = w.merged(self.p)
        held = torch.int8 if self.per_word == 4 else torch.int16
        self.packed, self.panels = pack_panels(
            *(grouped.to(held), centre.to(held), self.p),
            *(library.hetconv_panel_width(), self.per_word),
        )
        # What the levels of zero of the input add to each sum.
        self.row_sums = (grouped.double().sum((1, 2, 3)) + centre.double().sum((1, 2, 3))).int()
        # By the levels of the input.
        self._starts: dict[Levels, tuple[Tensor, Tensor]] = {}

    def _start(self, levels: Levels) -> tuple[Tensor, Tensor]:
        if levels not in self._starts:
            start = -levels.zero * self.row_sums
            self._starts[levels] = start, self.weight_scales * levels.scale
        return self._starts[levels]

    def __call__(self, x: Tensor, residual: Tensor | None, relu: bool) -> Tensor:
        w, levels = self.weights, self.input_levels(x)
        given = w.permute_input(_raw(x)).contiguous(memory_format=torch.channels_last)
        added, added_format = None, None
        if residual is not None:
            if not isinstance(residual, QuantizedTensor) and residual.dtype not in TYPES:
                residual = residual.float()
            added = w.permute_residual(_raw(residual))
            added = added.contiguous(memory_format=torch.channels_last)
            added_format = Format.of(added, getattr(residual, 'levels', None))
        output = self.int8.output
        y = empty_output(
            *(given, w.out_channels, w.kernel_size, w.stride, w.padding, w.dilation),
            dtype=torch.float32 if output is None else torch.uint8,
        )
        start, scale = self._start(levels)
        call(
            *(given, Format.of(given, levels), self.packed, self.panels, self.per_word),
            Geometry(w.kernel_size, w.stride, w.padding, w.dilation, self.p),
            *(y, Format.of(y, output), self.bias, relu, added, added_format, start, scale),
        )
        return self.give(w.permute_output(y))

    def prepared(self) -> list[Tensor]:
        return [self.packed, self.panels]


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
