"""A network's modules: their places, hooks and state."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from .kinds import OPERATIONS


def has_own_code(module: nn.Module) -> bool:
    """Whether forward() is replaced on the instance, or it or a part of it has hooks."""
    return any(
        'forward' in vars(inner) or inner._forward_hooks or inner._forward_pre_hooks
        for inner in module.modules()
    )


def outer_modules(model: nn.Module) -> list[nn.Module]:
    """All modules except the parts of those that count as one operation."""
    parts = {
        part
        for module in model.modules()
        if isinstance(module, OPERATIONS)
        for part in module.modules()
        if part is not module
    }
    return [module for module in model.modules() if module not in parts]


def count_places(model: nn.Module) -> dict[nn.Module, list[tuple[nn.Module, str]]]:
    """For each module, its parents and its names there."""
    places: dict[nn.Module, list[tuple[nn.Module, str]]] = {}
    for parent in model.modules():
        for name, child in parent._modules.items():
            if child is not None:
                places.setdefault(child, []).append((parent, name))
    return places


@contextmanager
def left_alone(model: nn.Module) -> Iterator[None]:
    """Eval mode inside; restore training flags, buffers and the random state afterwards."""
    training = {module: module.training for module in model.modules()}
    buffers = [
        (module, name, buffer, buffer._version, buffer.clone())
        for module in training
        if not isinstance(module, OPERATIONS)
        for name, buffer in module._buffers.items()
        if buffer is not None and not buffer.is_inference()
    ]
    places = {p.device for p in model.parameters() if p.device.type == 'cuda'}
    try:
        with torch.random.fork_rng(devices=list(places)):
            model.eval()
            yield
    finally:
        for module, flag in training.items():
            module.training = flag
        with torch.no_grad():
            for module, name, buffer, version, before in buffers:
                if name in module._buffers:
                    module._buffers[name] = buffer
                    if buffer._version != version:
                        buffer.copy_(before)
