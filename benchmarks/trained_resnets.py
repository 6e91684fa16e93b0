"""ResNets that others trained on CIFAR-10, and their images.

The checkpoints are those of akamaster/pytorch_resnet_cifar10, by Yerlan
Idelbayev (BSD-2-Clause): ResNet-20 with 91.73 % and ResNet-56 with 93.39 % on
the test set.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from cifar_data import load_split
from torch import Tensor, nn

CHECKPOINTS = {20: 'resnet20-12fca82f.th', 56: 'resnet56-4bfd9763.th'}
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


class Block(nn.Module):
    """Two 3 x 3 convolutions; the short-cut has no parameters."""

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.stride = stride
        self.missing = (out_channels - in_channels) // 2  # on each side

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.stride > 1 or self.missing:
            x = x[:, :, :: self.stride, :: self.stride]
            x = F.pad(x, (0, 0, 0, 0, self.missing, self.missing))
        return F.relu(y + x)


class ResNet(nn.Module):
    """3 stages of (depth - 2) / 6 blocks, 16 / 32 / 64 channels."""

    def __init__(self, depth: int):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        channels = 16
        for stage in range(3):
            filters = 16 * 2**stage
            blocks = []
            for number in range((depth - 2) // 6):
                blocks.append(Block(channels, filters, 2 if stage and not number else 1))
                channels = filters
            setattr(self, f'layer{stage + 1}', nn.Sequential(*blocks))
        self.linear = nn.Linear(channels, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


def load_trained(folder: str | Path, depth: int, device: str = 'cpu') -> nn.Module:
    """The trained network, in eval mode and channels_last."""
    path = Path(folder) / CHECKPOINTS[depth]
    state = torch.load(path, map_location='cpu', weights_only=True)['state_dict']
    model = ResNet(depth)
    model.load_state_dict({key.removeprefix('module.'): value for key, value in state.items()})
    return model.eval().to(device, memory_format=torch.channels_last)


def normalised(images: Tensor) -> Tensor:
    """What the networks take.

    Shape:
        images (B, 3, 32, 32), uint8; returns floats of the same shape.
    """
    mean = torch.tensor(MEAN, device=images.device).view(3, 1, 1) * 255
    std = torch.tensor(STD, device=images.device).view(3, 1, 1) * 255
    values = (images.float() - mean) / std
    return values.contiguous(memory_format=torch.channels_last)


def load_images(folder: str | Path, split: str) -> tuple[Tensor, Tensor]:
    """Images and labels in an order that is not that of their classes."""
    images, labels = load_split(folder, split)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    return images[order], labels[order]


def parser_of(doc: str) -> argparse.ArgumentParser:
    """What a script that converts these networks is told."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--data', required=True, metavar='DIR', help='CIFAR-10')
    parser.add_argument('--weights', required=True, metavar='DIR', help='the checkpoints')
    parser.add_argument('--depth', type=int, nargs='+', choices=CHECKPOINTS, default=[56])
    parser.add_argument('--p', type=int, nargs='+', default=[2, 4])
    parser.add_argument('--seeds', type=int, nargs='+', default=[0])
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--permute', action='store_true')
    parser.add_argument('--held-out', action='store_true')
    return parser


def run_all(args: argparse.Namespace, run: Callable[..., None]) -> None:
    """Call `run` for each seed, depth and p."""
    for seed in args.seeds:
        for depth in args.depth:
            for p in args.p:
                run(args, depth, p, seed)
