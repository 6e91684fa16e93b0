"""The fused kernel for GPUs: an implicit GEMM over two kinds of taps.

One program computes a tile of output pixels for a tile of one block's
filters: all M channels at the centre tap, then the block's M/p channels at
each other tap, in one float32 accumulator; bias, residual and ReLU follow
before the one store. x, residual and y are channels last.

Importing this module needs Triton; with TRITON_INTERPRET=1 it runs on the CPU.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..key import bucket


@triton.jit
def het_conv_kernel(
    x_at: tl.tensor,
    centre_at: tl.tensor,  # (M, N)
    taps_at: tl.tensor,  # (Kh Kw - 1, M/p, N)
    bias_at: tl.tensor,
    residual_at: tl.tensor,
    y_at: tl.tensor,
    pixels: tl.tensor,  # B Ho Wo
    tuned_for: tl.tensor,  # pixels rounded up: of one value the tile is tuned once
    height: tl.tensor,
    width: tl.tensor,
    out_height: tl.tensor,
    out_width: tl.tensor,
    channels: tl.constexpr,  # M
    filters: tl.constexpr,  # N
    block_channels: tl.constexpr,  # M/p
    block_filters: tl.constexpr,  # N/p
    KH: tl.constexpr,
    KW: tl.constexpr,
    STRIDE_H: tl.constexpr,
    STRIDE_W: tl.constexpr,
    PAD_H: tl.constexpr,
    PAD_W: tl.constexpr,
    DILATION_H: tl.constexpr,
    DILATION_W: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    RELU: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
) -> None:
    filter_tiles = tl.cdiv(block_filters, BLOCK_N)
    block = tl.program_id(1) // filter_tiles
    local = (tl.program_id(1) % filter_tiles) * BLOCK_N
    local += tl.arange(0, BLOCK_N)
    is_filter = local < block_filters
    n = block * block_filters + local

    pixel = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    is_pixel = pixel < pixels
    ox = pixel % out_width
    oy = (pixel // out_width) % out_height
    image = (pixel // (out_width * out_height)).to(tl.int64)
    top = oy * STRIDE_H - PAD_H
    left = ox * STRIDE_W - PAD_W
    k = tl.arange(0, BLOCK_K)
    total = tl.zeros((BLOCK_P, BLOCK_N), dtype=tl.float32)

    CENTRE: tl.constexpr = (KH // 2) * KW + KW // 2
    iy = top + (KH // 2) * DILATION_H
    ix = left + (KW // 2) * DILATION_W
    inside = is_pixel & (iy >= 0) & (iy < height) & (ix >= 0) & (ix < width)
    row = x_at + ((image * height + iy) * width + ix) * channels
    for c in range(0, channels, BLOCK_K):
        is_channel = c + k < channels
        a = tl.load(
            row[:, None] + (c + k)[None, :], mask=inside[:, None] & is_channel[None, :], other=0.0
        )
        w = tl.load(
            centre_at + (c + k)[:, None] * filters + n[None, :],
            mask=is_channel[:, None] & is_filter[None, :],
            other=0.0,
        )
        total = tl.dot(a, w, total, input_precision=PRECISION)

    for j in range(KH * KW - 1):
        tap = j + (j >= CENTRE)  # the centre is not among them
        iy = top + (tap // KW) * DILATION_H
        ix = left + (tap % KW) * DILATION_W
        inside = is_pixel & (iy >= 0) & (iy < height) & (ix >= 0) & (ix < width)
        row = x_at + ((image * height + iy) * width + ix) * channels
        row += block * block_channels
        weights = taps_at + j * block_channels * filters
        for c in range(0, block_channels, BLOCK_K):
            is_channel = c + k < block_channels
            a = tl.load(
                row[:, None] + (c + k)[None, :],
                mask=inside[:, None] & is_channel[None, :],
                other=0.0,
            )
            w = tl.load(
                weights + (c + k)[:, None] * filters + n[None, :],
                mask=is_channel[:, None] & is_filter[None, :],
                other=0.0,
            )
            total = tl.dot(a, w, total, input_precision=PRECISION)

    if HAS_BIAS:
        total += tl.load(bias_at + n, mask=is_filter, other=0.0)[None, :]
    at = pixel.to(tl.int64)[:, None] * filters + n[None, :]
    is_output = is_pixel[:, None] & is_filter[None, :]
    if HAS_RESIDUAL:
        total += tl.load(residual_at + at, mask=is_output, other=0.0)
    if RELU:
        total = tl.where(total < 0, 0.0, total)  # NaN stays
    tl.store(y_at + at, total.to(y_at.dtype.element_ty), mask=is_output)


def _tile(pixels: int, filters: int, channels: int, warps: int, stages: int) -> triton.Config:
    blocks = dict(BLOCK_P=pixels, BLOCK_N=filters, BLOCK_K=channels)
    return triton.Config(blocks, num_warps=warps, num_stages=stages)


tuned_kernel = triton.autotune(
    configs=[
        _tile(128, 128, 64, 8, 3),
        _tile(128, 128, 32, 8, 4),
        _tile(128, 64, 64, 4, 3),
        _tile(128, 64, 32, 4, 4),
        _tile(256, 64, 32, 8, 3),
        _tile(64, 64, 64, 4, 4),
        _tile(128, 32, 32, 4, 4),
        _tile(128, 32, 64, 4, 3),
        _tile(256, 32, 32, 4, 3),
        _tile(64, 32, 32, 4, 4),
        _tile(128, 16, 16, 4, 4),
        _tile(128, 16, 32, 4, 4),
        _tile(256, 16, 16, 4, 3),
    ],
    key=['tuned_for', 'channels', 'filters', 'block_channels', 'KH', 'STRIDE_H'],
)(het_conv_kernel)


def launch(
    x: Tensor,
    centre: Tensor,
    taps: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    y: Tensor,
    kernel_size: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    p: int,
    relu: bool,
) -> None:
    """Fill y.

    Shape:
        x (B, M, H, W), residual and y (B, N, Ho, Wo), channels last;
        centre (M, N); taps (Kh Kw - 1, M/p, N); bias (N,).
    """
    batch, channels, height, width = x.shape
    _, filters, out_height, out_width = y.shape
    pixels = batch * out_height * out_width

    def grid(meta: dict[str, int]) -> tuple[int, int]:
        filter_tiles = triton.cdiv(filters // p, meta['BLOCK_N'])
        return triton.cdiv(pixels, meta['BLOCK_P']), p * filter_tiles

    arguments = (
        *(x, centre, taps, bias, residual, y),
        *(pixels, bucket(pixels), height, width, out_height, out_width),
        *(channels, filters, channels // p, filters // p),
        *(*kernel_size, *stride, *padding, *dilation),
        *(bias is not None, residual is not None, relu),
        'tf32' if allows_tf32() else 'ieee',
    )
    if x.is_cuda:
        with torch.cuda.device(x.device):
            tuned_kernel[grid](*arguments)
    else:  # the interpreter, where there is nothing to tune
        het_conv_kernel[grid](*arguments, BLOCK_P=64, BLOCK_N=32, BLOCK_K=32)


def allows_tf32() -> bool:
    """torch's own setting for float32 convolutions."""
    return torch.backends.cudnn.allow_tf32
