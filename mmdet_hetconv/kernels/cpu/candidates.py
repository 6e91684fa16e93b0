"""The candidates that the compiled kernel computes.

Blocks too narrow for a vector are merged; with p=1 it is a dense convolution.
"""

import torch
from torch import Tensor

from ..candidate import Candidate
from ..int8 import Int8Candidate
from ..quantized_tensor import QuantizedTensor, raw
from ..weights import ConvWeights, Levels
from .abi import TYPES
from .library import load_library
from .operators import FLOATS, packed_dtype
from .panels import merge_blocks, pack_panels

# Products of 255 and 127 whose sum fits 32 bits.
MOST_TAPS = (2**31 - 1) // (255 * 127)
PLAIN = Levels(1.0, 0)  # of floats


# A tile of sums has 16 filters. Its steps are 16 words of 4 bytes, or 8.
TILE, LEAST_BYTES = 16, 32


def pack(
    weights: ConvWeights, dtype: torch.dtype, tiles: bool = False
) -> tuple[int, Tensor, Tensor]:
    """The p of the merged blocks, packed weights and panels, see :func:`pack_panels`.

    Args:
        tiles: pack for AMX's tiles; nothing is merged then.

    Raises:
        RuntimeError: there is no kernel for this machine.
    """
    library, reason = load_library()
    if library is None:
        raise RuntimeError(reason)
    per_word = 4 // dtype.itemsize
    p = weights.p
    if not tiles:
        p = merge_blocks(weights.out_channels, p, weights.in_channels, per_word)
    grouped, centre = (tensor.to(dtype) for tensor in weights.merged(p))
    widest = 2 * TILE if tiles else library.hetconv_panel_width()
    return p, *pack_panels(grouped, centre, p=p, widest=widest, per_word=per_word)


def why_no_tiles(weights: ConvWeights, bytes_per_channel: int) -> str | None:
    """Why AMX's tiles cannot form the sums of a layer, or None."""
    library, reason = load_library()
    if library is None or not library.hetconv_has_tiles():
        return reason or 'this processor, or the compiler, has no AMX'
    channels = weights.in_channels // weights.p
    if channels * bytes_per_channel % LEAST_BYTES:
        return f'blocks of {channels} channels do not fill steps of {LEAST_BYTES} bytes'
    if weights.out_channels // weights.p % TILE:
        return f'blocks of {weights.out_channels // weights.p} filters do not fill tiles of {TILE}'
    return None


class FusedCPU(Candidate):
    """The operator fused_cpu: float32 and bfloat16."""

    name, layout = 'fused_cpu', 'nhwc'
    tiles = False

    @classmethod
    def why_not(cls, weights: ConvWeights, x: Tensor) -> str | None:
        if x.device.type != 'cpu':
            return f'it runs on the CPU, not on {x.device.type}'
        if x.dtype not in FLOATS:
            return f'{x.dtype} is none of {FLOATS}'
        return load_library()[1]

    def __init__(self, weights: ConvWeights, x: Tensor):
        super().__init__(weights, x)
        self.bias = None if weights.bias is None else weights.bias.float().contiguous()
        self.p, self.packed, self.panels = pack(weights, x.dtype, self.tiles)

    def compute(self, x: Tensor, residual: Tensor | None, relu: bool) -> Tensor:
        w = self.weights
        y = torch.ops.mmdet_hetconv.fused_cpu.default(
            w.permute_input(x),
            self.packed,
            self.panels,
            self.bias,
            w.permute_residual(residual),
            *(w.out_channels, *w.geometry, self.p, relu, self.tiles),
        )
        return w.permute_output(y)

    def prepared(self) -> list[Tensor]:
        return [self.packed, self.panels]


class FusedAMX(FusedCPU):
    """The same in AMX's tiles: bfloat16."""

    name, tiles = 'fused_amx', True

    @classmethod
    def why_not(cls, weights: ConvWeights, x: Tensor) -> str | None:
        if x.dtype != torch.bfloat16:
            return f'AMX has no {x.dtype}'
        return super().why_not(weights, x) or why_no_tiles(weights, 2)


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
