"""How much memory an unfinished forward pass holds."""

import weakref
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


class LiveMemory:
    """Counts the outputs of modules that are still alive at given points.

    Used as a context manager around one forward pass.

    Attributes:
        peak: bytes, the most at any call of :meth:`look`.
    """

    def __init__(self, model: nn.Module):
        self.model = model
        self.peak = 0
        self._outputs: list[weakref.ref[Tensor]] = []
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> 'LiveMemory':
        self._handles = [
            module.register_forward_hook(self._note) for module in self.model.modules()
        ]
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _note(self, module: nn.Module, args: tuple[Any, ...], y: object) -> None:
        for value in y if isinstance(y, tuple | list) else (y,):
            if isinstance(value, Tensor):
                self._outputs.append(weakref.ref(value))

    def look(self) -> None:
        """Count what is alive now."""
        storages = {}
        alive = []
        for reference in self._outputs:
            value = reference()
            if value is not None:
                alive.append(reference)
                storage = value.untyped_storage()
                storages[storage.data_ptr()] = storage.nbytes()
        self._outputs = alive
        self.peak = max(self.peak, sum(storages.values()))
