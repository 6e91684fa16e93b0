"""What a network computes, to tell whether a permutation of channels changes it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ...trace import difference, find_tensors, hooked, map_tensors
from ...trace.examples import noise_like
from ..calibration.dense_trace import Forward

# Runs a network once and returns what it and the caller's function return.
Pass = Callable[[], list[Any]]
# How far norms of activations, and outputs, may move by rounding.
TOLERANCE = 1e-4
# And norms over regions, of which rounding may exchange some.
REGION_TOLERANCE = 0.05


def passes_of(model: nn.Module, batch: Any, forward: Forward) -> list[Pass]:
    """Forward passes on a batch, and on noise like it where that ends without an error.

    Raises:
        ValueError: the first returns no tensor.
    """
    first = partial(_run, model, batch, forward)
    if not list(find_tensors(first())):
        raise ValueError(
            f'{type(model).__name__}: its forward pass returns no tensor, so '
            'nobody can tell whether a permutation changes what it computes'
        )
    second = partial(_run, model, noise_like(batch), forward)
    try:
        second()
    except Exception:  # whatever a network says of an input that is not its own
        return [first]
    return [first, second]


def _run(model: nn.Module, batch: Any, forward: Forward) -> list[Any]:
    returned: list[Any] = []
    # A GPU's TF32 would round more than a permutation does.
    exact = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
    own = hooked({'': model}, after=lambda name, x, y: returned.append(y))
    with torch.no_grad(), exact, own:
        returned.append(forward(model, map_tensors(Tensor.clone, batch)))
    return returned


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
    norms: Tensor
    outputs: list[Tensor]

    def is_like(self, other: 'Fingerprint', sizes: set[int], ranks: bool) -> bool:
        """Whether both are the same function's.

        Args:
            sizes: of the axes that were permuted.
            ranks: whether the network selects by value, so that rows may be regions.
        """
        if self.norms.shape != other.norms.shape or len(self.outputs) != len(other.outputs):
            return False
        if not torch.allclose(self.norms, other.norms, rtol=TOLERANCE, atol=0, equal_nan=True):
            return False
        return all(
            difference(a, b) <= TOLERANCE or (ranks and self._same_regions(a, b, sizes))
            for a, b in zip(self.outputs, other.outputs)
        )

    def _same_regions(self, one: Tensor, other: Tensor, sizes: set[int]) -> bool:
        """Rows that are neither images nor channels may be regions in some order."""
        for rows in (one, other):
            if not rows.dim() or len(rows) == self.images:
                return False
            if any(len(rows) % size == 0 for size in sizes):
                return False
        one, other = (torch.linalg.vector_norm(x.double(), dim=0) for x in (one, other))
        return difference(one, other) <= REGION_TOLERANCE


def take_fingerprint(model: nn.Module, run: Pass) -> Fingerprint:
    """Run a network in eval mode once."""
    norms: list[Tensor] = []
    images = 0

    def note(name: str, x: Any, y: Any) -> None:
        nonlocal images
        if isinstance(y, Tensor) and y.dim():
            images = images or len(y)
            if len(y) == images:
                norms.append(y.double().norm())

    leaves = {name: m for name, m in model.named_modules() if not any(m.children())}
    with hooked(leaves, after=note):
        outputs = list(find_tensors(run()))
    return Fingerprint(images, torch.tensor(norms), outputs)
