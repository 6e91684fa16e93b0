"""The fused kernel for CPUs, see csrc/fused_cpu.cpp: exactly HetConv's MACs.

One pass over the input instead of two over the output: oneDNN's two
convolutions leave 20 - 40 % on the table, most of all with few channels in a
block (benchmarks/NOTES.md).
"""

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from ..candidate import Candidate, empty_output
from ..weights import ConvWeights
from .library import load_library
from .operators import Format, Geometry, call, merge_blocks, pack_panels

DTYPES = (torch.float32, torch.bfloat16)


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
    plain = Format.of(x)
    geometry = Geometry(kernel_size, stride, padding, dilation, p)
    per_word = 4 // x.element_size()
    call(
        *(x, plain, packed, panels, per_word, geometry, y, plain, None, relu, residual), start=bias
    )
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
        return load_library()[1]

    def __init__(self, weights: ConvWeights, x: Tensor):
        super().__init__(weights, x)
        library, reason = load_library()
        if library is None:
            raise RuntimeError(reason)
        self.bias = None if weights.bias is None else weights.bias.float().contiguous()
        per_word = 4 // x.element_size()
        self.p = merge_blocks(weights.out_channels, weights.p, weights.in_channels, per_word)
        grouped, centre = weights.merged(self.p)
        widest = library.hetconv_panel_width()
        self.packed, self.panels = pack_panels(grouped, centre, self.p, widest, per_word)

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
