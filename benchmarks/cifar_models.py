"""The paper's networks for 32 x 32 images, with a choice of convolution.

    build('vgg16', dict(type='HetConv', p=4))

VGG-16 with batch norm and a 512-512-10 head, ResNet-56, MobileNet (V1).
A conv_cfg of None is the network as published. HetConv and the paper's
rivals, 'GroupPointwiseConv' and 'DepthPointwiseConv', go by their names in
mmengine's registry. The convolution on the image stays dense. Needs torch and
mmengine only.
"""

import math
from collections.abc import Callable

import torch.nn.functional as F
from mmengine.registry import MODELS
from torch import Tensor, nn

import mmdet_hetconv.layers  # noqa: F401 (registers HetConv and its rivals)

VGG16 = (64, 64, 'M', 128, 128, 'M', 256, 256, 256, 'M')
VGG16 += (512, 512, 512, 'M', 512, 512, 512, 'M')
# (filters, stride) of the depth-wise + point-wise pairs, strides for 32 x 32.
MOBILENET = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2))
MOBILENET += ((512, 1),) * 5 + ((1024, 2), (1024, 1))


def conv3x3(
    conv_cfg: dict | None, in_channels: int, out_channels: int, stride: int = 1
) -> nn.Module:
    """A 3 x 3 convolution that a batch norm follows.

    A HetConv's p is cut to what the channels allow: narrow networks, and the
    first layers of MobileNet, have fewer than p.
    """
    shape = dict(
        in_channels=in_channels,
        out_channels=out_channels,
        kernel_size=3,
        stride=stride,
        padding=1,
        bias=False,
    )
    if conv_cfg is None:
        return nn.Conv2d(**shape)
    cfg = dict(conv_cfg, **shape)
    if 'p' in cfg:
        cfg['p'] = math.gcd(cfg['p'], in_channels, out_channels)
    return MODELS.build(cfg)


def conv_bn_relu(*args) -> list[nn.Module]:
    conv = conv3x3(*args)
    return [conv, nn.BatchNorm2d(conv.out_channels), nn.ReLU(inplace=True)]


def vgg16(conv_cfg: dict | None = None, num_classes: int = 10, width: float = 1) -> nn.Module:
    """VGG-16 with batch norm and a 512-512-classes head."""
    layers, channels = [], 3
    for filters in VGG16:
        if filters == 'M':
            layers.append(nn.MaxPool2d(2))
            continue
        cfg = conv_cfg if layers else None
        filters = round(filters * width)
        layers += conv_bn_relu(cfg, channels, filters)
        channels = filters
    return nn.Sequential(
        *layers,
        nn.Flatten(),
        nn.Linear(channels, channels),
        nn.ReLU(inplace=True),
        nn.Dropout(),
        nn.Linear(channels, num_classes),
    )


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions; the short-cut has no parameters (option A)."""

    def __init__(self, conv_cfg, in_channels, out_channels, stride):
        super().__init__()
        self.stride = stride
        self.padding = out_channels - in_channels
        self.body = nn.Sequential(
            *conv_bn_relu(conv_cfg, in_channels, out_channels, stride),
            conv3x3(conv_cfg, out_channels, out_channels),
            nn.BatchNorm2d(out_channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        short = x[:, :, :: self.stride, :: self.stride]
        short = F.pad(short, (0, 0, 0, 0, 0, self.padding))
        return F.relu(self.body(x) + short)


def resnet56(conv_cfg: dict | None = None, num_classes: int = 10, width: float = 1) -> nn.Module:
    """ResNet-56: 3 stages of 9 blocks, 16 / 32 / 64 channels."""
    channels = round(16 * width)
    layers = conv_bn_relu(None, 3, channels)
    for stage in range(3):
        filters = round(16 * 2**stage * width)
        for block in range(9):
            stride = 2 if block == 0 and stage else 1
            layers.append(BasicBlock(conv_cfg, channels, filters, stride))
            channels = filters
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes)
    )


def depthwise_pair(in_channels: int, out_channels: int, stride: int):
    """MobileNet's own pair, with batch norm and ReLU after both."""
    return [
        nn.Conv2d(in_channels, in_channels, 3, stride, 1, groups=in_channels, bias=False),
        nn.BatchNorm2d(in_channels),
        nn.ReLU(inplace=True),
        nn.Conv2d(in_channels, out_channels, 1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    ]


def mobilenet(conv_cfg: dict | None = None, num_classes: int = 10, width: float = 1) -> nn.Module:
    """MobileNet (V1): each pair becomes one convolution of `conv_cfg`."""
    channels = round(32 * width)
    layers = conv_bn_relu(None, 3, channels)
    for filters, stride in MOBILENET:
        filters = round(filters * width)
        if conv_cfg is None:
            layers += depthwise_pair(channels, filters, stride)
        else:
            layers += conv_bn_relu(conv_cfg, channels, filters, stride)
        channels = filters
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes)
    )


NETWORKS: dict[str, Callable[..., nn.Module]] = dict(
    vgg16=vgg16, resnet56=resnet56, mobilenet=mobilenet
)


def build(
    network: str, conv_cfg: dict | None = None, num_classes: int = 10, width: float = 1
) -> nn.Module:
    """A network by its name; `width` scales its numbers of channels.

    Shape:
        input of the network (B, 3, 32, 32); output (B, num_classes).

    Raises:
        ValueError: no such network.
    """
    if network not in NETWORKS:
        raise ValueError(f'network must be one of {tuple(NETWORKS)}, got {network!r}')
    return NETWORKS[network](conv_cfg, num_classes, width)
