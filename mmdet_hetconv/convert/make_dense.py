"""HetConv layers as the dense convolutions of the same function."""

import copy

import torch
from torch import nn

from ..layers import HetConv2d


def make_dense(model: nn.Module) -> nn.Module:
    """A copy whose HetConv2d are dense nn.Conv2d of the same function."""
    model = copy.deepcopy(model)
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, HetConv2d):
                setattr(parent, name, _dense_layer(layer))
    return model


@torch.no_grad()
def _dense_layer(layer: HetConv2d) -> nn.Conv2d:
    bias = layer.dense_bias()
    dense = nn.Conv2d(
        layer.in_channels,
        layer.out_channels,
        layer.kernel_size,
        layer.stride,
        layer.padding,
        layer.dilation,
        bias=bias is not None,
        padding_mode=layer.padding_mode,
    )
    dense.weight.copy_(layer.dense_weight())
    if dense.bias is not None and bias is not None:
        dense.bias.copy_(bias)
    return dense.to(layer.grouped.weight)
