"""Reversible changes of a model."""

from typing import Any

from torch.utils.hooks import RemovableHandle


class Changes:
    """A log of changes, to be undone in reverse order."""

    def __init__(self) -> None:
        self._before: list[tuple[Any, str, Any]] = []
        self._handles: list[RemovableHandle] = []

    def set(self, owner: Any, name: str, value: Any) -> None:
        """Set an attribute, a parameter, a child or the class."""
        self._before.append((owner, name, getattr(owner, name)))
        setattr(owner, name, value)

    def note(self, handle: RemovableHandle) -> None:
        """Remember a hook."""
        self._handles.append(handle)

    def undo(self) -> None:
        """Restore the original model."""
        for handle in self._handles:
            handle.remove()
        for owner, name, value in reversed(self._before):
            setattr(owner, name, value)
        self._before.clear()
        self._handles.clear()
