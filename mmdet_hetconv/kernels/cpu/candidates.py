"""The candidates that the compiled kernel computes.

Blocks too narrow for a vector are merged; with p=1 it is a dense convolution.
"""

import torch
from torch import Tensor

from ..candidate import Candidate
from ..weights import ConvWeights
from .library import load_library
from .operators import FLOATS
from .panels import merge_blocks, pack_panels

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
