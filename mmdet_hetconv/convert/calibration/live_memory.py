"""How much memory an unfinished forward pass holds."""

import weakref
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ...trace import find_tensors, hooked


def held_by_a_pass(
    model: nn.Module, stops: Mapping[str, nn.Module], run: Callable[[], object]
) -> int:
    """Bytes of all modules' outputs that are alive in front of a stop, at most.

    Args:
        run: runs the model once.
    """
    outputs: list[weakref.ref[Tensor]] = []
    peak = 0

    def note(name: str, x: Any, y: Any) -> None:
        outputs.extend(map(weakref.ref, find_tensors(y)))

    def look(name: str, x: Any) -> None:
        nonlocal peak
        alive = [tensor for reference in outputs if (tensor := reference()) is not None]
        outputs[:] = map(weakref.ref, alive)
        storages = {tensor.untyped_storage().data_ptr(): tensor for tensor in alive}
        peak = max(peak, sum(tensor.untyped_storage().nbytes() for tensor in storages.values()))

    everything = dict(model.named_modules())
    with torch.no_grad(), hooked(everything, after=note), hooked(stops, before=look):
        run()
    return peak
