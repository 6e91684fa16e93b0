"""What a layer sees at sampled output positions."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...layers import HetConv2d
from ...layers.functional import output_size


@dataclass(frozen=True)
class Patches:
    """Input values of a layer at S output positions, by taps.

    Channels are in the order of the layer's blocks, whatever its arrangement.

    Shape:
        centre: (S, M), at the kernel's centre;
        around: (S, M, T - 1), at the other taps, row by row.
    """

    centre: Tensor
    around: Tensor

    def blocks(self, p: int) -> Tensor:
        """The values around the centre, block by block.

        Shape:
            returns (p, S, (T - 1) M/p).
        """
        return self.around.unflatten(1, (p, -1)).flatten(2).transpose(0, 1)


def split_taps(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A weight at the kernel's centre, and around it, row by row.

    Shape:
        weight: (N, M, Kh, Kw); returns (N, M) and (N, M, T - 1).
    """
    weight = weight.flatten(2)
    middle = weight.shape[2] // 2
    around = torch.cat([weight[..., :middle], weight[..., middle + 1 :]], 2)
    return weight[..., middle], around


def sample_positions(total: int, wanted: int, generator: torch.Generator) -> Tensor:
    """At most `wanted` different numbers below `total`, in rising order."""
    chosen = torch.randperm(total, generator=generator)[:wanted]
    return chosen.sort().values


def take_outputs(y: Tensor, positions: Tensor) -> Tensor:
    """Output values at positions counted through (B, Ho, Wo).

    Shape:
        y: (B, N, Ho, Wo); positions: (S,); returns (S, N).
    """
    height, width = y.shape[-2:]
    positions = positions.to(y.device)
    image = positions // (height * width)
    return y[image, :, positions // width % height, positions % width]


def take_patches(layer: HetConv2d, x: Tensor, positions: Tensor) -> Patches:
    """The layer's input around output positions counted as above.

    Shape:
        x: (B, M, H, W); positions: (S,).
    """
    height, width = output_size(
        x.shape[-2:], layer.kernel_size, layer.stride, layer.padding, layer.dilation
    )
    positions = positions.to(x.device)
    image = positions // (height * width)
    row = positions // width % height * layer.stride[0]
    column = positions % width * layer.stride[1]
    top, left = layer.padding
    mode = 'constant' if layer.padding_mode == 'zeros' else layer.padding_mode
    x = F.pad(x, (left, left, top, top), mode=mode)
    kh, kw = layer.kernel_size
    taps = [
        x[image, :, row + i * layer.dilation[0], column + j * layer.dilation[1]]
        for i in range(kh)
        for j in range(kw)
    ]
    centre = taps.pop(kh * kw // 2)
    around = torch.stack(taps, dim=-1)
    if layer.input_order is not None:
        centre = centre[:, layer.input_order]
        around = around[:, layer.input_order]
    return Patches(centre, around)
