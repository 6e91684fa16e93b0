"""What a network computes on one batch, to compare it with another one."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .trace import Forward

ForwardHook = Callable[[nn.Module, tuple[Any, ...], Any], None]

# How far norms of activations, and outputs, may move by rounding.
TOLERANCE = 1e-4
# And norms over regions, of which rounding may exchange some.
REGION_TOLERANCE = 0.05


def find_tensors(value: object, seen: set[int] | None = None) -> Iterator[Tensor]:
    """All tensors in tuples, lists, mappings and attributes of objects."""
    seen = set() if seen is None else seen
    if id(value) in seen or isinstance(value, nn.Module | type):
        return
    seen.add(id(value))
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from find_tensors(each, seen)
    elif isinstance(value, tuple | list):
        for each in value:
            yield from find_tensors(each, seen)
    elif hasattr(value, '__dict__'):
        yield from find_tensors(vars(value), seen)


def run_watched(
    model: nn.Module, batch: object, forward: Forward, hook: Callable[[str], ForwardHook]
) -> list[Tensor]:
    """Run a network with a hook on all modules without children.

    Args:
        hook: makes a forward hook from a module's name.

    Returns:
        list: what the network and `forward` return.

    Raises:
        ValueError: neither returns a tensor.
    """
    returned: list[object] = []
    handles = [
        module.register_forward_hook(hook(name))
        for name, module in model.named_modules()
        if not any(module.children())
    ]
    handles.append(model.register_forward_hook(lambda module, args, y: returned.append(y)))
    # A GPU's TF32 would round more than a permutation does.
    exact = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
    try:
        with torch.no_grad(), exact:
            returned.append(forward(model, batch))
    finally:
        for handle in handles:
            handle.remove()
    outputs = list(find_tensors(returned))
    if not outputs:
        raise ValueError(
            f'{type(model).__name__}: its forward pass returns no tensor, so '
            'nobody can tell whether a permutation changes what it computes'
        )
    return outputs


@dataclass(frozen=True)
class Fingerprint:
    """What a right permutation of channels does not change.

    Attributes:
        images: of the batch.
        norms: of the activations of all modules that work on the images;
            what is done with single RoIs also depends on rounding, by way of
            their ranking.
        outputs: of the network.
    """

    images: int
    norms: list[float]
    outputs: list[Tensor]

    def is_like(self, other: 'Fingerprint', sizes: set[int]) -> bool:
        """Whether both are the same function's.

        Args:
            sizes: of the axes that were permuted.
        """
        return (
            len(self.norms) == len(other.norms)
            and len(self.outputs) == len(other.outputs)
            and all(
                abs(a - b) <= TOLERANCE * max(abs(a), abs(b), 1e-12)
                for a, b in zip(self.norms, other.norms)
            )
            and all(self._same(a, b, sizes) for a, b in zip(self.outputs, other.outputs))
        )

    def _same(self, one: Tensor, other: Tensor, sizes: set[int]) -> bool:
        one, other = one.double(), other.double()
        if one.shape == other.shape and _near(one, other, TOLERANCE):
            return True
        # Else rows may be regions, which come in an order of their own. They
        # are not where they may be images or channels.
        for rows in (one, other):
            if not rows.dim() or len(rows) == self.images:
                return False
            if any(len(rows) % size == 0 for size in sizes):
                return False
        return one.shape[1:] == other.shape[1:] and _near(
            torch.linalg.vector_norm(one, dim=0),
            torch.linalg.vector_norm(other, dim=0),
            REGION_TOLERANCE,
        )


def _near(one: Tensor, other: Tensor, tolerance: float) -> bool:
    most = max(one.norm().item(), other.norm().item())
    return (one - other).norm().item() <= tolerance * most


def take_fingerprint(model: nn.Module, batch: object, forward: Forward) -> Fingerprint:
    """Run a network in eval mode once."""
    norms: list[float] = []
    images = 0

    def hook(name: str) -> ForwardHook:
        def note(module: nn.Module, args: tuple[Any, ...], y: object) -> None:
            nonlocal images
            if isinstance(y, Tensor) and y.dim():
                images = images or len(y)
                if len(y) == images:
                    norms.append(y.double().norm().item())

        return note

    outputs = run_watched(model, batch, forward, hook)
    return Fingerprint(images, norms, outputs)
