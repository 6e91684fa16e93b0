"""Where the features of a dense and of a converted network are compared.

At the outputs of every module that holds converted layers: residual blocks,
stages, the neck, the head, the network itself. A converted layer that stands
in a mere list of layers is compared behind its batch norm, if it has one.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..layers import HetConv2d

Features = dict[str, list[Tensor]]


def find_taps(het: nn.Module) -> list[str]:
    """Names of the modules whose outputs are compared."""
    names = []
    for name, module in het.named_modules():
        if isinstance(module, HetConv2d):
            prefix, _, own = name.rpartition('.')
            parent = het.get_submodule(prefix)
            if isinstance(parent, (nn.Sequential, nn.ModuleList)):
                own = _behind(parent, own)
                names.append(f'{prefix}.{own}' if prefix else own)
        elif any(isinstance(child, HetConv2d) for child in module.modules()):
            names.append(name)
    return names


def _behind(parent: nn.Module, own: str) -> str:
    """The batch norm that follows a layer in a list, or the layer."""
    names = [name for name, _ in parent.named_children()]
    following = names[names.index(own) + 1 :][:1]
    if following and isinstance(parent.get_submodule(following[0]), _BatchNorm):
        return following[0]
    return own


def _tensors(value: object) -> Iterator[Tensor]:
    """The floating-point tensors in nested tuples, lists and dicts."""
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, (tuple, list, dict)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _tensors(part)


@contextmanager
def tapped(model: nn.Module, names: list[str]) -> Iterator[Features]:
    """A dict that a forward pass fills, by the names of the modules.

    It holds the tensors themselves: what is done to them in place
    afterwards, as activations are, is seen too.
    """
    features: Features = {}

    def keep(name: str) -> Callable[[nn.Module, object, object], None]:
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
    """|het - dense|^2 / |dense|^2 of each compared tensor, once each.

    Of another number of images than the first (the RoIs of a two-stage
    detector) no tensor is compared: the two networks see other ones there.
    """
    errors: dict[str, Tensor] = {}
    seen: set[int] = set()
    images = None
    for name, tensors in het.items():
        for number, (mine, theirs) in enumerate(zip(tensors, dense.get(name, ()))):
            images = len(mine) if images is None else images
            if id(mine) in seen or mine.shape != theirs.shape or len(mine) != images:
                continue
            seen.add(id(mine))
            power = theirs.square().sum().clamp_min(torch.finfo(theirs.dtype).tiny)
            key = f'{name}:{number}' if len(tensors) > 1 else name
            errors[key] = (mine - theirs).square().sum() / power
    return errors
