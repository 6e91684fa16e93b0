"""Which layer of a heterogeneous network stands for which dense one."""

from typing import Any, TypeVar

import torch
from torch import nn

from ..layers import HetConv2d
from ..layers.shape import as_pair, numeric_padding

COMPARED = (
    'in_channels',
    'out_channels',
    'kernel_size',
    'stride',
    'padding',
    'dilation',
    'groups',
    'padding_mode',
)
Kind = TypeVar('Kind', bound=nn.Module)


def find_modules(model: nn.Module, kind: type[Kind]) -> dict[str, Kind]:
    """The model's modules of a kind, by their first names."""
    return {name: module for name, module in model.named_modules() if isinstance(module, kind)}


def find_pairs(dense: nn.Module, het: nn.Module) -> dict[str, HetConv2d]:
    """The target network's HetConv layers, each matched by a dense one.

    Raises:
        ValueError: there are none; a layer has no counterpart of its name, or
            one of another shape; the dense network is none.
    """
    known = find_modules(dense, HetConv2d)
    if known:
        raise ValueError(
            f'the dense model has {len(known)} HetConv layers already, {next(iter(known))} '
            'for one: name the config and the checkpoint of a dense detector'
        )
    modules = dict(dense.named_modules())
    pairs = find_modules(het, HetConv2d)
    if not pairs:
        raise ValueError('the target model has no HetConv layer')
    for name, layer in pairs.items():
        conv = modules.get(name)
        if not isinstance(conv, nn.Conv2d):
            found = 'nothing' if conv is None else f'a {type(conv).__name__}'
            raise ValueError(
                f'{name} is a HetConv2d in the target model, but the dense '
                f'model has {found} of this name'
            )
        for key in COMPARED:
            mine, theirs = getattr(layer, key), _as_numbers(conv, key)
            if mine != theirs:
                raise ValueError(
                    f'{name}: {key} is {mine} in the target model and {theirs} in the dense one'
                )
    return pairs


def _as_numbers(conv: nn.Conv2d, key: str) -> Any:
    """An attribute of a dense convolution in the form that HetConv2d has it."""
    value = getattr(conv, key)
    if key in ('stride', 'dilation'):
        return as_pair(value)
    if key == 'padding':
        kernel = as_pair(conv.kernel_size)
        return numeric_padding(value, as_pair(conv.stride), kernel, as_pair(conv.dilation))
    return value


def load_projected(dense: nn.Module, het: nn.Module) -> None:
    """Load the dense weights into the target model, which projects them.

    Raises:
        ValueError: a dense weight is not finite; the two models are not of
            one architecture.
    """
    state = dense.state_dict()
    for name, value in state.items():
        if not torch.isfinite(value).all():
            raise ValueError(f'the dense model: {name} is not finite')
    try:
        het.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f'the dense weights do not fit the target model: {error}') from error
