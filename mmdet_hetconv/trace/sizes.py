"""Sizes of tensors that report comparisons: code that compares them may branch."""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class Size(int):
    """An integer that reports when it is compared; so do integers computed from it."""

    _notice: 'weakref.ref[Any]'

    @staticmethod
    def of(value: int, notice: 'weakref.ref[Any]') -> 'Size':
        """Make a size that calls the weakly referenced ``notice`` when it is compared."""
        size = Size(value)
        size._notice = notice
        return size

    def _tell(self) -> None:
        notice = self._notice()
        if notice is not None:
            notice()

    def __reduce__(self) -> Any:
        return int, (int(self),)


def _computing(name: str) -> Callable[..., Any]:
    compute = getattr(int, name)

    def method(self: Size, *others: Any) -> Any:
        result = compute(self, *others)
        return Size.of(result, self._notice) if type(result) is int else result

    return method


def _telling(name: str) -> Callable[..., Any]:
    compute = getattr(int, name)

    def method(self: Size, *others: Any) -> Any:
        self._tell()
        return compute(self, *others)

    return method


for _name in ('add', 'sub', 'mul', 'floordiv', 'mod'):
    for _side in ('', 'r'):
        setattr(Size, f'__{_side}{_name}__', _computing(f'__{_side}{_name}__'))
for _name in ('neg', 'abs'):
    setattr(Size, f'__{_name}__', _computing(f'__{_name}__'))
for _name in ('eq', 'ne', 'lt', 'le', 'gt', 'ge', 'bool', 'hash'):
    setattr(Size, f'__{_name}__', _telling(f'__{_name}__'))


def as_sizes(result: Any, notice: 'weakref.ref[Any]') -> Any:
    """Turn a shape, or an integer of one, into sizes."""
    if isinstance(result, torch.Size):
        return torch.Size([Size.of(side, notice) for side in result])
    return Size.of(result, notice) if type(result) is int else result


_SHAPE: Any = Tensor.shape
ASKING_SIZES = frozenset((Tensor.size, Tensor.numel, _SHAPE.__get__, torch.numel))
# These return Python values, on which code may branch.
ASKING_VALUES = frozenset(
    (
        *(Tensor.__bool__, Tensor.__int__, Tensor.__float__, Tensor.__index__, Tensor.__len__),
        *(Tensor.item, Tensor.tolist, Tensor.__contains__, torch.equal, torch.allclose),
        *(Tensor.equal, Tensor.allclose, Tensor.is_nonzero, torch.is_nonzero),
    )
)
