"""What a choice between candidates depends on: the layer and its input."""

from typing import NamedTuple

import torch
from torch import Tensor

from ..utils.machine import cpu_name
from .weights import ConvWeights


class LayerKey(NamedTuple):
    """Layers of equal key cost the same on equal inputs."""

    in_channels: int
    out_channels: int
    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    p: int
    bias: bool
    permuted: bool
    residual: bool
    relu: bool
    int8: bool = False

    @classmethod
    def of(cls, weights: ConvWeights, residual: bool, relu: bool) -> 'LayerKey':
        return cls(
            in_channels=weights.in_channels,
            out_channels=weights.out_channels,
            kernel_size=weights.kernel_size,
            stride=weights.stride,
            padding=weights.padding,
            dilation=weights.dilation,
            p=weights.p,
            bias=weights.bias is not None,
            permuted=not (weights.input_order is None and weights.output_order is None),
            residual=residual,
            relu=relu,
            int8=weights.int8 is not None,
        )

    def __str__(self) -> str:
        """'64->64 3x3 stride 1x1 padding 1x1 dilation 1x1 p=4 bias relu'."""
        words = [f'{self.in_channels}->{self.out_channels}']
        words += [_times(self.kernel_size), f'stride {_times(self.stride)}']
        words += [f'padding {_times(self.padding)}']
        words += [f'dilation {_times(self.dilation)} p={self.p}']
        flags = ('bias', 'permuted', 'residual', 'relu', 'int8')
        words += [name for name in flags if getattr(self, name)]
        return ' '.join(words)


class InputKey(NamedTuple):
    """Inputs of equal key are served by one choice.

    Attributes:
        batch, height, width: rounded up, see :func:`bucket`.
        layout: 'nchw' or 'nhwc'.
        device: the machine that the choice is good for.
    """

    batch: int
    height: int
    width: int
    dtype: str
    layout: str
    device: str

    @classmethod
    def of(cls, x: Tensor) -> 'InputKey':
        batch, _, height, width = x.shape
        return cls(
            bucket(batch),
            bucket(height),
            bucket(width),
            str(x.dtype).removeprefix('torch.'),
            layout_of(x),
            device_name(x.device),
        )

    @property
    def pixels(self) -> int:
        return self.batch * self.height * self.width

    @property
    def kind(self) -> tuple[str, str, str]:
        """All but the size."""
        return self.dtype, self.layout, self.device

    def __str__(self) -> str:
        size = f'{self.batch}x{self.height}x{self.width}'
        return ' '.join((size, *self.kind))


def _times(pair: tuple[int, int]) -> str:
    return 'x'.join(map(str, pair))


def bucket(size: int) -> int:
    """The next of 1, 2, 3, 4, 6, 8, 12, 16, 24 ...; 0 for 0."""
    if size <= 2:
        return size
    power = 1 << (size - 1).bit_length()  # the next power of two
    return power * 3 // 4 if size <= power * 3 // 4 else power


def layout_of(x: Tensor) -> str:
    """'nhwc' for a channels-last tensor, else 'nchw'."""
    last = x.is_contiguous(memory_format=torch.channels_last)
    return 'nhwc' if last and not x.is_contiguous() else 'nchw'


def device_name(device: torch.device) -> str:
    """What a choice made on this device is good for."""
    if device.type == 'cuda':
        return torch.cuda.get_device_name(device)
    if device.type == 'cpu':
        capability = torch.backends.cpu.get_cpu_capability()
        threads = torch.get_num_threads()
        return f'{cpu_name()}, {capability}, {threads} threads'
    return device.type
