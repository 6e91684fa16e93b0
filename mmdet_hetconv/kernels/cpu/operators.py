"""The fused kernel for CPUs as operators, see csrc/fused_cpu.cpp: exactly HetConv's MACs.

One pass over the input instead of two over the output: oneDNN's two
convolutions leave 20 - 40 % on the table, most of all with few channels in a
block (benchmarks/NOTES.md). ``fused_cpu`` computes in the type of its input,
``fused_int8`` in integers.

They are defined without torch.library.custom_op, whose wrappers for autograd
and aliasing take longer than a small layer.
"""

import ctypes
import math
import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from ..candidate import empty_output
from .abi import TYPES, Call, Ends, Format, format_of, shape_of
from .library import load_library

FLOATS = (torch.float32, torch.bfloat16)
_GEOMETRY = (
    'int filters, int[] kernel_size, int[] stride, int[] padding, int[] dilation, int p, bool relu,'
    ' bool tiles=False'
)


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


def _pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _check(name: str, tensor: Tensor, dtype: torch.dtype, size: int | None = None) -> None:
    """Refuse what the kernel would misread, or read beyond."""
    if tensor.dtype != dtype or not tensor.is_contiguous():
        raise ValueError(
            f'the fused kernel: {name} is {tensor.dtype} with strides {tensor.stride()}, '
            f'{dtype} and contiguous is needed'
        )
    if size is not None and tensor.numel() != size:
        raise ValueError(f'the fused kernel: {name} has {tensor.numel()} values for {size} filters')


def _convolve(
    *,
    compute: torch.dtype,
    x: Tensor,
    input: Format,
    packed: Tensor,
    panels: Tensor,
    geometry: tuple[int, ...],
    bias: Tensor | None,
    residual: Tensor | None,
    residual_format: Format,
    relu: bool,
    dtype: torch.dtype,
    output: Format,
    correction: Tensor | None = None,
    scale: Tensor | None = None,
    tiles: bool = False,
) -> Tensor:
    """relu(scale * (correction + hetconv(x)) + bias + residual), of a dtype.

    Raises:
        ValueError: a tensor is not as large as the kernel reads; the packed
            weights are not of such a layer.
        RuntimeError: there is no kernel for this machine, or no memory.
    """
    library, reason = load_library()
    if library is None:
        raise RuntimeError(f'the fused kernel: {reason}')
    _check('panels', panels, torch.int64)
    if panels.dim() != 2 or panels.shape[1] != 5:
        raise ValueError(f'the fused kernel: panels are {tuple(panels.shape)}, not (number, 5)')
    if bias is not None:
        _check('bias', bias, torch.float32, geometry[0])
    x = x.contiguous(memory_format=torch.channels_last)
    per_word = 4 // packed.element_size()
    shape = shape_of(x.shape, geometry, per_word)
    size = shape.batch, shape.filters, shape.out_height, shape.out_width
    y = torch.empty(size, dtype=dtype, memory_format=torch.channels_last)
    if residual is not None:
        if residual.shape != y.shape:
            raise ValueError(
                f'the fused kernel: residual is {tuple(residual.shape)}, the output {size}'
            )
        residual = residual.contiguous(memory_format=torch.channels_last)
    if not y.numel():
        return y
    ends = Ends(
        correction=_pointer(correction),
        scale=_pointer(scale),
        bias=_pointer(bias),
        residual=_pointer(residual),
        residual_format=residual_format,
        output=output,
        relu=relu,
    )
    call = Call(
        compute=TYPES[compute],
        shape=shape,
        input=input,
        x=x.data_ptr(),
        weights=packed.data_ptr(),
        weight_count=packed.numel() // per_word,
        panel=panels.data_ptr(),
        panels=len(panels),
        ends=ends,
        y=y.data_ptr(),
        cache_bytes=CACHE_BYTES,
        threads=torch.get_num_threads(),
        tiles=tiles,
    )
    failed = library.hetconv_fused(ctypes.byref(call))
    if failed == 2:
        raise ValueError(
            f'the fused kernel: {packed.numel()} packed weights are not those of '
            f'{geometry[0]} filters on {x.shape[1]} channels'
        )
    if failed:
        raise RuntimeError('the fused kernel: out of memory')
    return y


torch.library.define(
    'mmdet_hetconv::fused_cpu',
    f'(Tensor x, Tensor packed, Tensor panels, Tensor? bias, Tensor? residual, {_GEOMETRY})'
    ' -> Tensor',
)


def fused_cpu(
    x: Tensor,
    packed: Tensor,
    panels: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    filters: int,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    p: int,
    relu: bool,
    tiles: bool = False,
) -> Tensor:
    """relu(hetconv(x) + bias + residual) on packed weights.

    Args:
        tiles: form the sums in AMX's tiles; the weights are packed for them.

    Shape:
        x (B, M, H, W) and residual (B, N, Ho, Wo), both float32 or both
        bfloat16; bias (N,), float32; packed and panels: see
        :func:`pack_panels`; returns (B, N, Ho, Wo), channels last.

    Raises:
        ValueError: a tensor is of another shape or dtype.
        RuntimeError: there is no kernel for this machine, or no memory.
    """
    if x.dtype not in FLOATS:
        raise ValueError(f'the fused kernel: x is {x.dtype}, not one of {FLOATS}')
    if residual is not None and residual.dtype != x.dtype:
        raise ValueError(f'the fused kernel: residual is {residual.dtype}, x {x.dtype}')
    _check('packed', packed, x.dtype)
    plain = format_of(x.dtype)
    return _convolve(
        compute=x.dtype,
        x=x,
        input=plain,
        packed=packed,
        panels=panels,
        geometry=(filters, *kernel_size, *stride, *padding, *dilation, p),
        bias=bias,
        residual=residual,
        residual_format=plain,
        relu=relu,
        dtype=x.dtype,
        output=plain,
        tiles=tiles,
    )


# Short lists: each costs the dispatcher a microsecond.
torch.library.define(
    'mmdet_hetconv::fused_int8',
    '(Tensor x, Tensor packed, Tensor panels, Tensor correction, Tensor scale, Tensor bias,'
    ' Tensor? residual, float[] levels, int[] geometry, bool relu, bool bytes_out,'
    ' bool tiles=False) -> Tensor',
)


def fused_int8(
    x: Tensor,
    packed: Tensor,
    panels: Tensor,
    correction: Tensor,
    scale: Tensor,
    bias: Tensor,
    residual: Tensor | None,
    levels: Sequence[float],
    geometry: Sequence[int],
    relu: bool,
    bytes_out: bool,
    tiles: bool = False,
) -> Tensor:
    """relu(scale * (correction + hetconv(levels of x)) + bias + residual).

    Floats become bytes where the input is packed.

    Args:
        levels: scale and zero of the bytes of x, or of those that its floats
            become; the same of the residual and of the output.
        geometry: filters, then height and width of kernel, stride, padding
            and dilation, then p.
        bytes_out: put out bytes, not float32.
        tiles: form the sums in AMX's tiles; the weights are packed for them.

    Shape:
        x (B, M, H, W) and residual (B, N, Ho, Wo), each bytes, float32 or
        bfloat16; correction (N,), int32: what the zero of x adds to each sum,
        negative; scale, bias (N,), float32; returns (B, N, Ho, Wo), channels last.

    Raises:
        ValueError: a tensor is of another shape or dtype.
        RuntimeError: there is no kernel for this machine, or no memory.
    """
    for name, tensor in (('x', x), ('residual', residual)):
        if tensor is not None and tensor.dtype not in TYPES:
            raise ValueError(f'the fused kernel: {name} is {tensor.dtype}, not one of {[*TYPES]}')
    filters = geometry[0]
    _check('packed', packed, packed_dtype())
    _check('correction', correction, torch.int32, filters)
    _check('scale', scale, torch.float32, filters)
    dtype = torch.uint8 if bytes_out else torch.float32
    return _convolve(
        compute=torch.uint8,
        x=x,
        input=format_of(x.dtype, levels[0], levels[1]),
        packed=packed,
        panels=panels,
        geometry=tuple(geometry),
        bias=bias,
        residual=residual,
        residual_format=format_of((x if residual is None else residual).dtype, *levels[2:4]),
        relu=relu,
        dtype=dtype,
        output=format_of(dtype, *levels[4:]),
        correction=correction,
        scale=scale,
        tiles=tiles,
    )


torch.library.impl('mmdet_hetconv::fused_cpu', 'cpu', fused_cpu)
torch.library.impl('mmdet_hetconv::fused_int8', 'cpu', fused_int8)


def packed_dtype() -> torch.dtype:
    """Of integer weights: 16 bits where no instruction multiplies bytes."""
    library, _ = load_library()
    return torch.int8 if library is None or library.hetconv_bytes_per_word() == 4 else torch.int16


@torch.library.register_fake('mmdet_hetconv::fused_cpu')
def _(x: Tensor, packed: Tensor, panels: Tensor, bias: Any, residual: Any, *rest: Any) -> Tensor:
    return empty_output(x, *rest[:5])


@torch.library.register_fake('mmdet_hetconv::fused_int8')
def _(x: Tensor, *rest: Any) -> Tensor:
    geometry, _, bytes_out = rest[7:10]
    filters, *pairs, _ = geometry
    kernel_size, stride, padding, dilation = (pairs[i : i + 2] for i in range(0, 8, 2))
    return empty_output(
        x,
        filters,
        kernel_size,
        stride,
        padding,
        dilation,
        dtype=torch.uint8 if bytes_out else torch.float32,
    )


def _count(x: Sequence[int], kernel_size: Sequence[int], p: int, y: Sequence[int]) -> int:
    """Two FLOPs for each weight that is used and each output pixel."""
    per_value = x[1] + (math.prod(kernel_size) - 1) * (x[1] // p)
    return 2 * math.prod(y) * per_value


@register_flop_formula(torch.ops.mmdet_hetconv.fused_cpu)
def _(x_shape: Sequence[int], *rest: Any, out_shape: Sequence[int], **_: Any) -> int:
    kernel_size, p = rest[5], rest[9]
    return _count(x_shape, kernel_size, p, out_shape)


@register_flop_formula(torch.ops.mmdet_hetconv.fused_int8)
def _(x_shape: Sequence[int], *rest: Any, out_shape: Sequence[int], **_: Any) -> int:
    geometry = rest[7]
    return _count(x_shape, geometry[1:3], geometry[-1], out_shape)
