"""HetConv layers as the dense convolutions of the same function."""

import copy

import torch
from torch import nn

from ..layers import HetConv2d


def make_dense(model: nn.Module) -> nn.Module:
    """A copy whose HetConv2d are dense nn.Conv2d of the same function.

    A layer in several places stays one layer in them all.
    """
    model = copy.deepcopy(model)
    dense = {m: _dense_layer(m) for m in model.modules() if isinstance(m, HetConv2d)}
    for parent in list(model.modules()):
        # named_children() would leave out the second place of a child.
        for name, layer in list(parent._modules.items()):
            if isinstance(layer, HetConv2d):
                setattr(parent, name, dense[layer])
    return dense[model] if isinstance(model, HetConv2d) else model


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
    dense.to(layer.grouped.weight)
    for name, parameter in dense.named_parameters():
        parameter.requires_grad_(layer.grouped.get_parameter(name).requires_grad)
    return dense.train(layer.training)
