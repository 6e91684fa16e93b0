"""Residual blocks with their additions fused into the last convolution."""

import re

from mmdet.models.backbones.resnet import BasicBlock, Bottleneck
from torch import Tensor, nn

from ..kernels import PlannedConv2d
from .fold_bn import has_hooks


class DeployedBlock(nn.Module):
    """relu(conv_n( ... conv_1(x)) + downsample(x)), each with its ReLU.

    Args:
        convs (list[PlannedConv2d]): all with a ReLU of their own.
        downsample (nn.Module, optional): of the shortcut.
    """

    def __init__(self, convs: list[PlannedConv2d], downsample: nn.Module | None):
        super().__init__()
        self.convs = nn.ModuleList(convs)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        residual = x if self.downsample is None else self.downsample(x)
        *first, last = self.convs
        for conv in first:
            x = conv(x)
        return last(x, residual)


def trained_name(name: str) -> str:
    """What a convolution of a :class:`DeployedBlock` was called before."""
    return re.sub(r'\.convs\.(\d+)$', lambda found: f'.conv{int(found[1]) + 1}', name)


def block_convs(block: nn.Module) -> list[nn.Module] | None:
    """The convolutions of a stock residual block whose norms are folded.

    Returns:
        list: None if it is anything else, or hooks see what happens in it.
    """
    if type(block) is BasicBlock:
        numbers: tuple[int, ...] = (1, 2)
    elif type(block) is Bottleneck and not block.with_plugins:
        numbers = (1, 2, 3)
    else:
        return None
    norms = [getattr(block, getattr(block, f'norm{i}_name')) for i in numbers]
    if not all(type(norm) is nn.Identity for norm in norms):
        return None
    if type(block.relu) is not nn.ReLU or has_hooks(block):
        return None
    return [getattr(block, f'conv{i}') for i in numbers]
