"""The call of the compiled convolution, see csrc/fused_cpu.cpp."""

import ctypes
import os
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..weights import Levels
from .library import load_library


class Format(ctypes.Structure):
    """How numbers lie in memory; bytes q stand for scale * (q - zero)."""

    _fields_ = [
        ('type', ctypes.c_int64),
        ('scale', ctypes.c_float),
        ('inverse', ctypes.c_float),
        ('zero', ctypes.c_float),
    ]

    @classmethod
    def of(cls, x: Tensor, levels: Levels | None = None) -> 'Format':
        """Of a tensor; levels: what bytes, or floats as such, stand for."""
        scale, zero = levels or (1.0, 0)
        return cls(TYPES[x.dtype], scale, 1 / scale, zero)


class _Ends(ctypes.Structure):
    _fields_ = [
        ('start', ctypes.c_void_p),
        ('scale', ctypes.c_void_p),
        ('bias', ctypes.c_void_p),
        ('residual', Format),
        ('output', Format),
        ('relu', ctypes.c_int64),
    ]


# The numbers of a Format's type.
TYPES = {torch.float32: 0, torch.bfloat16: 1, torch.uint8: 2}


class Geometry(NamedTuple):
    """What a convolution's kernel does, nn.Conv2d's names."""

    kernel_size: Sequence[int]
    stride: Sequence[int]
    padding: Sequence[int]
    dilation: Sequence[int]
    p: int


def _cache_bytes() -> int:
    """Memory for packed input: 40 % of a core's level-2 cache.

    The rest is for a panel's weights and the output.
    """
    try:
        size = os.sysconf('SC_LEVEL2_CACHE_SIZE')
    except (AttributeError, OSError, ValueError):
        size = 0
    return int(0.4 * (size if size > 0 else 1 << 20))


CACHE_BYTES = _cache_bytes()
# Blocks narrower than this many filters are merged: a vector has 8.
NARROWEST = 8


def merge_blocks(filters: int, p: int, channels: int = 0, per_word: int = 1) -> int:
    """The largest divisor of p whose blocks fill a vector, and words.

    Args:
        channels (int): input channels.
        per_word (int): of them in a word of 32 bits.
    """
    for part in range(p, 1, -1):
        fills = filters // part >= NARROWEST and channels // part % per_word == 0
        if p % part == 0 and fills:
            return part
    return 1


def pack_panels(
    grouped: Tensor, centre: Tensor, p: int, widest: int, per_word: int
) -> tuple[Tensor, Tensor]:
    """Weights in the order in which the kernel reads them.

    A panel is a run of filters of one block; for each channel its filters
    lie side by side, padded with zeros to the panel's width: first all
    channels at the centre, then the block's channels tap by tap. Some channels
    make a word of 32 bits, the last one filled with zeros.

    Args:
        widest (int): filters of the widest panel.
        per_word (int): channels of a word.

    Shape:
        grouped: (N, M/p, Kh, Kw), its centre is not used;
        centre: (N, M, 1, 1); returns the packed weights (any,) and the
        panels (panels, 5): first filter, filters, width, first word of the
        block's channels, offset into the packed weights in words.
    """

    def fill(rows: Tensor) -> Tensor:
        return F.pad(rows, (0, -rows.shape[-1] % per_word))

    filters, m, kh, kw = grouped.shape
    taps = [t for t in range(kh * kw) if t != kh // 2 * kw + kw // 2]
    own = fill(grouped.flatten(2)[:, :, taps].transpose(1, 2)).flatten(1)
    rows = torch.cat([fill(centre.flatten(1)), own], dim=1)
    packed, panels, offset = [], [], 0
    block = filters // p
    for b in range(p):
        first, end = b * block, (b + 1) * block
        while first < end:
            left = end - first
            width = next((w for w in (widest, widest // 2) if w <= left), NARROWEST)
            used = min(width, left)
            panel = F.pad(rows[first : first + used], (0, 0, 0, width - used))
            words = panel.unflatten(1, (-1, per_word)).transpose(0, 1)
            packed.append(words.reshape(-1))
            panels.append([first, used, width, b * m // per_word, offset])
            offset += packed[-1].numel() // per_word
            first += used
    return torch.cat(packed), torch.tensor(panels, dtype=torch.int64)


def _pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def call(
    x: Tensor,
    x_format: Format,
    packed: Tensor,
    panels: Tensor,
    per_word: int,
    geometry: Geometry,
    y: Tensor,
    y_format: Format,
    bias: Tensor | None,
    relu: bool,
    residual: Tensor | None = None,
    residual_format: Format | None = None,
    start: Tensor | None = None,
    scale: Tensor | None = None,
) -> None:
    """Write relu(scale * (start + hetconv(x)) + bias + residual) into y.

    It computes in the type of x; in integers where there is a scale. The
    callers have checked that everything is as large as the kernel reads.

    Args:
        start: of the sums; bias of floats, which have no scale.

    Shape:
        x (B, M, H, W), residual and y (B, N, Ho, Wo), channels last; start,
        scale, bias (N,).

    Raises:
        ValueError: the packed weights are not of such a layer.
        RuntimeError: there is no kernel for this machine, or no memory.
    """
    library, reason = load_library()
    if library is None:
        raise RuntimeError(f'the fused kernel: {reason}')
    if panels.dim() != 2 or panels.shape[1] != 5:
        raise ValueError(f'the fused kernel: panels are {tuple(panels.shape)}, not (number, 5)')
    if not y.numel():
        return
    batch, channels, height, width = x.shape
    filters, out_height, out_width = y.shape[1:]
    words = -(-channels // per_word)
    block = words if geometry.p == 1 else channels // geometry.p // per_word
    shape = (
        *(batch, height, width, words, out_height, out_width, filters),
        *(*geometry.kernel_size, *geometry.stride, *geometry.padding, *geometry.dilation),
        *(block, channels),
    )
    ends = _Ends(
        *(_pointer(start), _pointer(scale), _pointer(bias)),
        residual_format or y_format,
        y_format,
        relu,
    )
    failed = library.hetconv_fused(
        TYPES[torch.uint8 if scale is not None else x.dtype],
        (ctypes.c_int64 * len(shape))(*shape),
        ctypes.byref(x_format),
        x.data_ptr(),
        packed.data_ptr(),
        packed.numel() // per_word,
        panels.data_ptr(),
        len(panels),
        ctypes.byref(ends),
        _pointer(residual),
        y.data_ptr(),
        CACHE_BYTES,
        torch.get_num_threads(),
    )
    if failed == 2:
        raise ValueError(
            f'the fused kernel: {packed.numel()} packed weights are not those of '
            f'{filters} filters on {channels} channels'
        )
    if failed:
        raise RuntimeError('the fused kernel: out of memory')
