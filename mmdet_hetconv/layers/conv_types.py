"""The factories behind this package's conv_cfg types.

A component of mmdet hands its conv_cfg to stems, 1 x 1 and depth-wise
convolutions too: those, a convolution on an image (at most 4 channels, that become at least
twice as many), and shapes that do not fit, become a plain nn.Conv2d.
The arguments are nn.Conv2d's, in its order and meaning.
"""

from typing import Any

from mmengine.registry import MODELS
from torch import nn

from .group_pointwise import DepthPointwiseConv2d, GroupPointwiseConv2d
from .hetconv import HetConv2d
from .shape import IMAGE_CHANNELS, check_p, is_stem, why_not_heterogeneous


def _on_meta(*args: Any, **kwargs: Any) -> nn.Conv2d:
    """An nn.Conv2d on the meta device, made for its attributes."""
    return nn.Conv2d(*args, **kwargs | dict(device='meta'))


@MODELS.register_module('HetConv')
def build_het_conv(
    *args: Any, p: int = 4, arrangement: str = 'blocked', **kwargs: Any
) -> nn.Module:
    """Build the layer of ``conv_cfg=dict(type='HetConv', p=4)``.

    Where :func:`why_not_heterogeneous` finds no heterogeneity in the shape,
    and for p=1, this is a plain nn.Conv2d.

    Raises:
        ValueError: p is not an integer >= 1, or unknown arrangement.
    """
    check_p(p, arrangement)
    if p == 1 or why_not_heterogeneous(_on_meta(*args, **kwargs), p):
        return nn.Conv2d(*args, **kwargs)
    return HetConv2d(*args, p=p, arrangement=arrangement, **kwargs)


@MODELS.register_module('GroupPointwiseConv')
def build_group_pointwise_conv(*args: Any, conv_groups: int = 4, **kwargs: Any) -> nn.Module:
    """Build the layer of ``conv_cfg=dict(type='GroupPointwiseConv')``.

    Shapes that do not fit are built as plain nn.Conv2d.

    Raises:
        ValueError: conv_groups is not an integer >= 1.
    """
    if not isinstance(conv_groups, int) or conv_groups < 1:
        raise ValueError(
            'GroupPointwiseConv: conv_groups must be an integer '
            f'>= 1, got conv_groups={conv_groups!r}'
        )
    conv = _on_meta(*args, **kwargs)
    if (
        conv.kernel_size == (1, 1)
        or conv.groups != 1
        or conv_groups == 1
        or conv.in_channels % conv_groups
        or is_stem(conv)
    ):
        return nn.Conv2d(*args, **kwargs)
    return GroupPointwiseConv2d(*args, conv_groups=conv_groups, **kwargs)


@MODELS.register_module('DepthPointwiseConv')
def build_depth_pointwise_conv(*args: Any, **kwargs: Any) -> nn.Module:
    """Build the layer of ``conv_cfg=dict(type='DepthPointwiseConv')``.

    1 x 1 and grouped convolutions are built as plain nn.Conv2d, and so is any
    convolution on at most 4 channels, as in MobileNet.
    """
    conv = _on_meta(*args, **kwargs)
    if conv.kernel_size == (1, 1) or conv.groups != 1 or conv.in_channels <= IMAGE_CHANNELS:
        return nn.Conv2d(*args, **kwargs)
    return DepthPointwiseConv2d(*args, **kwargs)
