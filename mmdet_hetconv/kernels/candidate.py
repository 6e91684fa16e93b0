"""What every way to compute an inference convolution has in common."""

import torch
from torch import Tensor

from ..layers.functional import output_size
from .weights import ConvWeights

LAYOUTS = {'nchw': torch.contiguous_format, 'nhwc': torch.channels_last}


class Candidate:
    """One way to compute a convolution, with its weights prepared.

    Attributes:
        name (str): how the plan calls it.
        layout (str): 'nchw' or 'nhwc'; inputs are brought into it.
        dense (bool): whether it does the dense convolution's work.
        quantized (bool): whether it is for layers that compute in 8 bits.

    Shape:
        call: x (B, M, H, W), residual (B, N, Ho, Wo) or None; returns
        (B, N, Ho, Wo) = relu(conv(x) + bias + residual).
    """

    name: str
    layout: str
    dense = False
    quantized = False

    @classmethod
    def why_not(cls, weights: ConvWeights, x: Tensor) -> str | None:
        """Why it cannot take this input, or None."""
        raise NotImplementedError

    def __init__(self, weights: ConvWeights, x: Tensor):
        self.weights = weights

    def __call__(self, x: Tensor, residual: Tensor | None, relu: bool) -> Tensor:
        memory_format = LAYOUTS[self.layout]
        x = x.contiguous(memory_format=memory_format)
        if residual is not None:
            residual = residual.contiguous(memory_format=memory_format)
        return self.compute(x, residual, relu)

    def compute(self, x: Tensor, residual: Tensor | None, relu: bool) -> Tensor:
        raise NotImplementedError

    def prepared(self) -> list[Tensor]:
        """The weights that it holds beside the layer's own."""
        raise NotImplementedError


def crash(weights: ConvWeights, x: Tensor) -> str | None:
    """Why torch's convolutions with the channels last may end the process, or None.

    torch 2.13's do on maps one pixel wide with dilated kernels.
    """
    is_thin = x.device.type == 'cpu' and 1 in x.shape[2:]
    if is_thin and tuple(weights.dilation) != (1, 1):
        return "torch's own may crash on maps one pixel wide"
    return None


def finish(y: Tensor, residual: Tensor | None, relu: bool) -> Tensor:
    """Add and rectify in place."""
    if residual is not None:
        y += residual
    return y.relu_() if relu else y


def empty_output(
    x: Tensor,
    filters: int,
    kernel_size: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    dtype: torch.dtype | None = None,
) -> Tensor:
    """The output of a convolution of x, not filled, channels last."""
    size = output_size(x.shape[2:], kernel_size, stride, padding, dilation)
    return torch.empty(
        (x.shape[0], filters, *size),
        dtype=dtype or x.dtype,
        device=x.device,
        memory_format=torch.channels_last,
    )
