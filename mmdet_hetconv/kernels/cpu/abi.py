"""The structs that the compiled kernel takes, field by field as in csrc."""

import ctypes
from functools import cache, lru_cache

import torch

from ...layers.functional import output_size

# The numbers of a Format's type.
TYPES = {torch.float32: 0, torch.bfloat16: 1, torch.uint8: 2}


class Format(ctypes.Structure):
    """How numbers lie in memory; bytes q stand for scale * (q - zero)."""

    _fields_ = [
        ('type', ctypes.c_int64),
        ('scale', ctypes.c_float),
        ('inverse', ctypes.c_float),
        ('zero', ctypes.c_float),
    ]


@cache
def format_of(dtype: torch.dtype, scale: float = 1.0, zero: float = 0.0) -> Format:
    """The format of a dtype; scale and zero of bytes, or of floats that become bytes."""
    return Format(TYPES[dtype], scale, 1 / scale, zero)


class Shape(ctypes.Structure):
    """Sizes of input, output and kernel; input channels in words of 32 bits."""

    _fields_ = [
        (name, ctypes.c_int64)
        for name in (
            *('batch', 'height', 'width', 'words', 'out_height', 'out_width', 'filters'),
            *('kernel_height', 'kernel_width', 'stride_y', 'stride_x', 'padding_y', 'padding_x'),
            *('dilation_y', 'dilation_x', 'block_words', 'channels'),
        )
    ]


@lru_cache(4096)
def shape_of(size: torch.Size, geometry: tuple[int, ...], per_word: int) -> Shape:
    """The struct for inputs of one size: built once, as that takes longer than a lookup.

    Args:
        geometry: filters, then height and width of kernel, stride, padding and dilation, then p.
    """
    batch, channels, height, width = size
    filters, kh, kw, sh, sw, ph, pw, dh, dw, p = geometry
    out_height, out_width = output_size((height, width), (kh, kw), (sh, sw), (ph, pw), (dh, dw))
    words = -(-channels // per_word)
    return Shape(
        batch=batch,
        height=height,
        width=width,
        words=words,
        out_height=out_height,
        out_width=out_width,
        filters=filters,
        kernel_height=kh,
        kernel_width=kw,
        stride_y=sh,
        stride_x=sw,
        padding_y=ph,
        padding_x=pw,
        dilation_y=dh,
        dilation_x=dw,
        block_words=words if p == 1 else channels // p // per_word,
        channels=channels,
    )


class Ends(ctypes.Structure):
    """What becomes of the sums; pointers to one number per filter, and the residual."""

    _fields_ = [
        ('correction', ctypes.c_void_p),
        ('scale', ctypes.c_void_p),
        ('bias', ctypes.c_void_p),
        ('residual', ctypes.c_void_p),
        ('residual_format', Format),
        ('output', Format),
        ('relu', ctypes.c_int64),
    ]


class Call(ctypes.Structure):
    """One convolution."""

    _fields_ = [
        ('compute', ctypes.c_int64),
        ('shape', Shape),
        ('input', Format),
        ('x', ctypes.c_void_p),
        ('weights', ctypes.c_void_p),
        ('weight_count', ctypes.c_int64),
        ('panel', ctypes.c_void_p),
        ('panels', ctypes.c_int64),
        ('ends', Ends),
        ('y', ctypes.c_void_p),
        ('cache_bytes', ctypes.c_int64),
        ('threads', ctypes.c_int64),
        ('tiles', ctypes.c_int64),
    ]


STRUCTS = Format, Shape, Ends, Call


def declare(library: ctypes.CDLL) -> ctypes.CDLL:
    """Set the argument types of a library's functions.

    Raises:
        AttributeError: it is no build of the kernel.
        RuntimeError: its structs have other sizes than these.
    """
    sizes = (ctypes.c_int64 * len(STRUCTS))()
    library.hetconv_struct_sizes(sizes)
    for struct, size in zip(STRUCTS, sizes):
        if ctypes.sizeof(struct) != size:
            raise RuntimeError(
                f'{struct.__name__} has {ctypes.sizeof(struct)} bytes in Python, '
                f'{size} in the compiled kernel'
            )
    library.hetconv_fused.argtypes = [ctypes.POINTER(Call)]
    library.hetconv_max_pool.argtypes = [*[ctypes.c_void_p] * 3, ctypes.c_int]
    return library
