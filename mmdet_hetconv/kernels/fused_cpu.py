"""The fused kernel for CPUs, see csrc/fused_cpu.cpp: exactly HetConv's MACs.

One pass over the input instead of two over the output: oneDNN's two
convolutions leave 20 - 40 % on the table, most of all with few channels in a
block (benchmarks/NOTES.md).
"""

import ctypes
import os

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from .candidate import Candidate, empty_output
from .compile_cpu import load_library
from .weights import ConvWeights


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

DTYPES = (torch.float32, torch.bfloat16)
# Blocks narrower than this many filters are merged: a vector has 8.
NARROWEST = 8


def merge_blocks(filters: int, p: int) -> int:
    """The largest divisor of p whose blocks fill a vector."""
    for part in range(p, 1, -1):
        if p % part == 0 and filters // part >= NARROWEST:
            return part
    return 1


def pack_panels(grouped: Tensor, centre: Tensor, p: int, widest: int) -> tuple[Tensor, Tensor]:
    """Weights in the order in which the kernel reads them.

    A panel is a run of filters of one block; for each channel its filters
    lie side by side, padded with zeros to the panel's width: first all
    channels at the centre, then the block's channels tap by tap. Two channels
    of bfloat16 make a word of 32 bits, as one of float32 does.

    Args:
        widest (int): filters of the widest panel.

    Shape:
        grouped: (N, M/p, Kh, Kw), its centre is not used;
        centre: (N, M, 1, 1); returns the packed weights (any,) and the
        panels (panels, 5): first filter, filters, width, first word of the
        block's channels, offset into the packed weights in words.
    """
    per_word = 4 // grouped.element_size()
    filters, m, kh, kw = grouped.shape
    taps = [t for t in range(kh * kw) if t != kh // 2 * kw + kw // 2]
    own = grouped.flatten(2)[:, :, taps].transpose(1, 2).flatten(1)
    rows = torch.cat([centre.flatten(1), own], dim=1)
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


def _check_rows(**tensors: tuple[Tensor | None, torch.dtype]) -> None:
    """Refuse weights that do not lie as pack_panels() leaves them."""
    for name, (tensor, dtype) in tensors.items():
        if tensor is None or (tensor.dtype == dtype and tensor.is_contiguous()):
            continue
        raise ValueError(
            f'mmdet_hetconv::fused_cpu: {name} is {tensor.dtype} with strides '
            f'{tensor.stride()}, {dtype} and contiguous is needed'
        )


# Not torch.library.custom_op: its wrappers for autograd and aliasing take
# longer than a small layer.
torch.library.define(
    'mmdet_hetconv::fused_cpu',
    '(Tensor x, Tensor packed, Tensor panels, Tensor? bias, Tensor? residual,'
    ' int filters, int[] kernel_size, int[] stride, int[] padding,'
    ' int[] dilation, int p, bool relu) -> Tensor',
)


@torch.library.impl('mmdet_hetconv::fused_cpu', 'cpu')
def fused_cpu(
    x: Tensor,
    packed: Tensor,
    panels: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    filters: int,
    kernel_size: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    p: int,
    relu: bool,
) -> Tensor:
    """relu(hetconv(x) + bias + residual) on packed weights.

    Shape:
        x (B, M, H, W) and residual (B, N, Ho, Wo), both float32 or both
        bfloat16, channels last; bias (N,), float32; packed and panels: see
        :func:`pack_panels`.

    Raises:
        ValueError: a tensor is of another shape or dtype; the kernel would
            read beyond its end.
        RuntimeError: there is no kernel for this machine, or no memory.
    """
    library, reason = load_library()
    if library is None:
        raise RuntimeError(f'mmdet_hetconv::fused_cpu: {reason}')
    x = x.contiguous(memory_format=torch.channels_last)
    y = empty_output(x, filters, kernel_size, stride, padding, dilation)
    _check_rows(packed=(packed, x.dtype), panels=(panels, torch.int64), bias=(bias, torch.float32))
    if x.dtype not in DTYPES:
        raise ValueError(f'mmdet_hetconv::fused_cpu: x is {x.dtype}, not one of {DTYPES}')
    if residual is not None:
        if residual.shape != y.shape or residual.dtype != x.dtype:
            raise ValueError(
                f'mmdet_hetconv::fused_cpu: residual is {residual.dtype} '
                f'{tuple(residual.shape)}, the output {x.dtype} '
                f'{tuple(y.shape)}'
            )
        residual = residual.contiguous(memory_format=torch.channels_last)
    if bias is not None and bias.numel() != filters:
        raise ValueError(
            f'mmdet_hetconv::fused_cpu: bias has {bias.numel()} values for {filters} filters'
        )
    if not y.numel():
        return y
    batch, channels, height, width = x.shape
    per_word = 4 // x.element_size()
    words = channels // per_word
    shape = (
        *(batch, height, width, words, *y.shape[2:], filters),
        *(*kernel_size, *stride, *padding, *dilation, words // p),
    )
    failed = library.hetconv_fused(
        per_word == 2,
        x.data_ptr(),
        packed.data_ptr(),
        None if bias is None else bias.data_ptr(),
        None if residual is None else residual.data_ptr(),
        y.data_ptr(),
        (ctypes.c_int64 * len(shape))(*shape),
        panels.data_ptr(),
        len(panels),
        packed.numel() // per_word,
        relu,
        CACHE_BYTES,
        torch.get_num_threads(),
    )
    if failed == 2:
        raise ValueError(
            f'mmdet_hetconv::fused_cpu: {packed.numel()} packed weights are '
            f'not those of {filters} filters on {channels} channels'
        )
    if failed:
        raise RuntimeError('mmdet_hetconv::fused_cpu: out of memory')
    return y


@torch.library.register_fake('mmdet_hetconv::fused_cpu')
def _(x, packed, panels, bias, residual, filters, kernel_size, stride, padding, dilation, p, relu):
    return empty_output(x, filters, kernel_size, stride, padding, dilation)


@register_flop_formula(torch.ops.mmdet_hetconv.fused_cpu)
def _flops(x_shape, packed, panels, bias, residual, filters, *args, out_shape, **_) -> int:
    """Two for each weight that is used and each output pixel."""
    kernel_size, *_, p, _relu = args
    taps = kernel_size[0] * kernel_size[1] - 1
    per_value = x_shape[1] + taps * (x_shape[1] // p)
    batch, _, height, width = out_shape
    return 2 * batch * height * width * filters * per_value


class FusedCPU(Candidate):
    """csrc/fused_cpu.cpp; blocks too narrow for a vector are merged.

    With p=1 it is a dense convolution.
    """

    name, layout = 'fused_cpu', 'nhwc'

    @classmethod
    def why_not(cls, weights: ConvWeights, x: Tensor) -> str | None:
        if x.device.type != 'cpu':
            return f'it runs on the CPU, not on {x.device.type}'
        if x.dtype not in DTYPES:
            return f'{x.dtype} is none of {DTYPES}'
        block = weights.in_channels // merge_blocks(weights.out_channels, weights.p)
        if block * x.element_size() % 4:
            return f'{block} channels of a block do not fill words of 32 bits'
        return load_library()[1]

    def __init__(self, weights: ConvWeights, x: Tensor):
        super().__init__(weights, x)
        library, reason = load_library()
        if library is None:
            raise RuntimeError(reason)
        self.bias = None if weights.bias is None else weights.bias.float().contiguous()
        self.p = merge_blocks(weights.out_channels, weights.p)
        grouped, centre = weights.merged(self.p)
        self.packed, self.panels = pack_panels(
            grouped, centre, self.p, library.hetconv_panel_width()
        )

    def compute(self, x: Tensor, residual: Tensor | None, relu: bool) -> Tensor:
        w = self.weights
        y = torch.ops.mmdet_hetconv.fused_cpu.default(
            w.permute_input(x),
            self.packed,
            self.panels,
            self.bias,
            w.permute_residual(residual),
            w.out_channels,
            w.kernel_size,
            w.stride,
            w.padding,
            w.dilation,
            self.p,
            relu,
        )
        return w.permute_output(y)

    def prepared(self) -> list[Tensor]:
        return [self.packed, self.panels]
