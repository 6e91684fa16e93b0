"""The fused kernel for GPUs as an operator and as a candidate.

The operator has a fake kernel and a FLOP formula. Triton is optional.
"""

import functools
import importlib.util
import math
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from ..candidate import Candidate, empty_output
from ..weights import ConvWeights

DTYPES = (torch.float16, torch.bfloat16, torch.float32)
# Tiles of tl.dot are 16 wide: narrower blocks work, on zeros.
NARROWEST = 8
# Pixels are counted in 32 bits, up to the end of the last tile.
MOST_PIXELS = 2**31 - 1024
TOO_MANY = f'more than {MOST_PIXELS} pixels'


@functools.cache
def _interpreted() -> bool:
    from triton import knobs

    return knobs.runtime.interpret


def pack_taps(grouped: Tensor, centre: Tensor) -> tuple[Tensor, Tensor]:
    """Weights in the order in which the kernel reads them.

    Shape:
        grouped (N, M/p, Kh, Kw), its centre is not used; centre
        (N, M, 1, 1); returns (M, N) and (Kh Kw - 1, M/p, N).
    """
    kh, kw = grouped.shape[-2:]
    taps = [t for t in range(kh * kw) if t != kh // 2 * kw + kw // 2]
    packed = grouped.flatten(2)[:, :, taps].permute(2, 1, 0)
    return centre.flatten(1).t().contiguous(), packed.contiguous()


@torch.library.custom_op('mmdet_hetconv::fused', mutates_args=())
def fused(
    x: Tensor,
    centre: Tensor,
    taps: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    kernel_size: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    p: int,
    relu: bool,
) -> Tensor:
    """relu(hetconv(x) + bias + residual) on packed weights.

    Shape:
        x (B, M, H, W) and residual (B, N, Ho, Wo), brought into channels
        last; centre and taps: see :func:`pack_taps`.
    """
    from .kernel import launch

    x = x.contiguous(memory_format=torch.channels_last)
    if residual is not None:
        residual = residual.contiguous(memory_format=torch.channels_last)
    y = empty_output(x, centre.shape[1], kernel_size, stride, padding, dilation)
    if math.prod(y.shape) // max(1, y.shape[1]) > MOST_PIXELS:
        raise ValueError(f'mmdet_hetconv::fused: the output is {tuple(y.shape)}, {TOO_MANY}')
    channels, filters = centre.shape
    wanted = dict(
        x=(x, (*x.shape[:1], channels, *x.shape[2:])),
        taps=(taps, (len(taps), channels // p, filters)),
        bias=(bias, (filters,)),
        residual=(residual, y.shape),
    )
    for name, (tensor, shape) in wanted.items():
        if tensor is not None and tensor.shape != shape:
            raise ValueError(
                f'mmdet_hetconv::fused: {name} is {tuple(tensor.shape)}, not {tuple(shape)}'
            )
    centre, taps = centre.contiguous(), taps.contiguous()
    bias = None if bias is None else bias.contiguous()
    if y.numel():
        launch(
            *(x, centre, taps, bias, residual, y),
            *(kernel_size, stride, padding, dilation, p, relu),
        )
    return y


@fused.register_fake
def _(x: Tensor, centre: Tensor, taps: Tensor, bias: Any, residual: Any, *geometry: Any) -> Tensor:
    return empty_output(x, centre.shape[1], *geometry[:4])


@register_flop_formula(torch.ops.mmdet_hetconv.fused)
def _flops(x: Any, centre: Any, taps: Any, *rest: Any, out_shape: Any, **_: Any) -> int:
    """Two for each weight that is used and each output pixel."""
    channels, filters = centre
    per_value = channels + taps[0] * taps[1]
    batch, _, height, width = out_shape
    return 2 * batch * height * width * filters * per_value


class FusedTriton(Candidate):
    """kernel.py."""

    name, layout = 'fused_triton', 'nhwc'

    @classmethod
    def why_not(cls, weights: ConvWeights, x: Tensor) -> str | None:
        if weights.p == 1:
            return 'p=1 has nothing to fuse'
        if importlib.util.find_spec('triton') is None:
            return 'Triton is not installed'
        if x.device.type != 'cuda' and not _interpreted():
            return f'Triton runs on GPUs, not on {x.device.type}'
        if x.dtype not in DTYPES:
            return f'{x.dtype} is none of {DTYPES}'
        if x.shape[0] * math.prod(weights.output_size(x.shape[2:])) > MOST_PIXELS:
            return TOO_MANY
        block = min(weights.in_channels, weights.out_channels) // weights.p
        if block < NARROWEST:
            return f'blocks of {block} channels, fewer than {NARROWEST}'
        return None

    def __init__(self, weights: ConvWeights, x: Tensor):
        super().__init__(weights, x)
        self.centre, self.taps = pack_taps(*weights.merged(weights.p))

    def compute(self, x: Tensor, residual: Tensor | None, relu: bool) -> Tensor:
        w = self.weights
        y = fused(
            w.permute_input(x),
            self.centre,
            self.taps,
            w.bias,
            w.permute_residual(residual),
            w.kernel_size,
            w.stride,
            w.padding,
            w.dilation,
            w.p,
            relu,
        )
        return w.permute_output(y)

    def prepared(self) -> list[Tensor]:
        return [self.centre, self.taps]
