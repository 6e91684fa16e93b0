"""Maps over the tensors inside nested inputs and outputs."""

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn


def map_tensors(change: Callable[[Tensor], Tensor], value: Any) -> Any:
    """The same value with every tensor in it changed.

    It goes through tuples, namedtuples, lists, mappings, dataclasses and other objects
    that hold tensors as attributes. Containers are copied, what holds no tensor is not.
    A tensor in two places is changed once and stays one tensor.
    """
    return _map(change, value, {})


def _map(change: Callable[[Tensor], Tensor], value: Any, done: dict[int, Any]) -> Any:
    if id(value) in done:
        return done[id(value)]
    if isinstance(value, Tensor):
        result = done[id(value)] = change(value)
        return result
    if isinstance(value, tuple):
        parts = [_map(change, item, done) for item in value]
        if all(a is b for a, b in zip(parts, value)):
            return value
        return type(value)(*parts) if hasattr(value, '_fields') else type(value)(parts)
    if isinstance(value, list):
        changed = [_map(change, item, done) for item in value]
        if all(a is b for a, b in zip(changed, value)):
            return value
        same = copy.copy(value)
        same[:] = changed
        return same
    if isinstance(value, Mapping):
        items = {key: _map(change, item, done) for key, item in value.items()}
        if all(items[key] is item for key, item in value.items()):
            return value
        mapping: Any = copy.copy(value)
        for key, item in items.items():
            mapping[key] = item
        return mapping
    if not _has_attributes(value):
        return value
    done[id(value)] = value  # objects may hold each other
    attributes = {key: _map(change, item, done) for key, item in vars(value).items()}
    if all(attributes[key] is item for key, item in vars(value).items()):
        return value
    result = done[id(value)] = copy.copy(value)
    # Past __setattr__: dataclasses may be frozen, mmengine's elements count attributes.
    result.__dict__.update(attributes)
    return result


def find_tensors(value: Any) -> Iterator[Tensor]:
    """All tensors of a value, each once, in the order of :func:`map_tensors`."""
    found: dict[int, Tensor] = {}

    def note(tensor: Tensor) -> Tensor:
        found.setdefault(id(tensor), tensor)
        return tensor

    map_tensors(note, value)
    yield from found.values()


def _has_attributes(value: Any) -> bool:
    if isinstance(value, nn.Module | type) or callable(value):
        return False
    return hasattr(value, '__dict__') and type(value).__module__ != 'builtins'
