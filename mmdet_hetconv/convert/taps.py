"""Where the features of a dense and of a converted network are compared.

At the outputs of every module that holds converted layers: residual blocks,
stages, the neck, the head, the network itself. A converted layer that stands
in a mere list of layers is compared behind its batch norm, if it has one.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..layers import HetConv2d

Features = dict[str, list[Tensor]]


def _tensors(value: object) -> Iterator[Tensor]:
    """The floating-point tensors in nested tuples, lists and dicts."""
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from _tensors(part)
    elif isinstance(value, dict):
        for part in value.values():
            yield from _tensors(part)


def find_taps(het: nn.Module) -> list[str]:
    """Names of the modules whose outputs are compared."""
    names = []
    for name, module in het.named_modules():
        if isinstance(module, HetConv2d):
            parent = het.get_submodule(name.rpartition('.')[0])
            if isinstance(parent, (nn.Sequential, nn.ModuleList)):
                names.append(_behind(name, parent))
        elif any(isinstance(child, HetConv2d) for child in module.modules()):
            names.append(name)
    return [name for name in names if not name.startswith('_')]


def _behind(name: str, parent: nn.Module) -> str:
    """The batch norm that follows a layer in a list, or the layer."""
    prefix, _, own = name.rpartition('.')
    children = list(parent.named_children())
    place = [key for key, _ in children].index(own) + 1
    if place < len(children) and isinstance(children[place][1], _BatchNorm):
        own = children[place][0]
    return f'{prefix}.{own}' if prefix else own


@contextmanager
def tapped(model: nn.Module, names: list[str]) -> Iterator[Features]:
    """A dict that a forward pass fills, by the names of the modules.

    It holds the tensors themselves: what is done to them in place
    afterwards, as activations are, is seen too.
    """
    features: Features = {}

    def keep(name: str) -> Any:
        def hook(module: nn.Module, args: object, output: object) -> None:
            features.setdefault(name, []).extend(_tensors(output))

        return hook

    modules = dict(model.named_modules())
    handles = [modules[name].register_forward_hook(keep(name)) for name in names]
    try:
        yield features
    finally:
        for handle in handles:
            handle.remove()


def relative_errors(het: Features, dense: Features) -> dict[str, Tensor]:
    """|het - dense|^2 / |dense|^2 of each compared tensor, once each."""
    errors: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensors in reversed(het.items()):
        for number, (mine, theirs) in enumerate(zip(tensors, dense.get(name, ()))):
            if id(mine) in seen or mine.shape != theirs.shape:
                continue
            seen.add(id(mine))
            power = theirs.square().sum().clamp_min(torch.finfo(theirs.dtype).tiny)
            errors[f'{name}:{number}'] = (mine - theirs).square().sum() / power
    return errors
