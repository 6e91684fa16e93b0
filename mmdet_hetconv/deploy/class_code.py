"""What the code of a module does with its children.

An inference form exchanges and fuses children. A module that only calls them
notices nothing; one that multiplies with a child's weight, or runs the parts
of a ConvModule by itself, would compute something else. Its code tells.
"""

import dis
import functools
import inspect
from collections.abc import Iterator
from types import CodeType, FunctionType

import torch
from torch import nn

# What a folded or fused child no longer has, or no longer alone.
PARTS = frozenset({'weight', 'bias', 'conv', 'norm', 'activate'})
# All children, where the code does not name the one.
EVERY = '*'
# Any tensor has a method of that name.
_OF_TENSORS = frozenset({'norm'})
# Methods that run before a model is in use begin so.
_BEFORE_USE = ('__init__', 'init_', '_init_', '_freeze', '_load_', 'reset_')
# What computes with torch's own operators only, which mind the strides.
_STRIDES_MINDED = ('torch.', 'mmdet.', 'mmcv.cnn.', 'mmdet_hetconv.')


def reached_children(module: nn.Module) -> set[str]:
    """Names of the children of which the module's code uses parts.

    Returns:
        set: of the names; :data:`EVERY` among them stands for all children.
    """
    kind: type = type(module)
    return set(_reached(kind))


def runs_one_after_the_other(module: nn.Module, first: str, second: str) -> bool:
    """Whether the module's code names two children, next to each other."""
    kind: type = type(module)
    return (first, second) in _neighbours(kind)


def runs_once(module: nn.Module, child: str) -> bool:
    """Whether the module's code names a child in one place only."""
    kind: type = type(module)
    return sum(base == 'self' and names[0] == child for base, names in _attributes(kind)) == 1


def ignores_strides(module: nn.Module) -> bool:
    """Whether the module may run kernels that read memory row by row.

    Those are the operators of mmcv.ops, as modules and as functions, and
    any torch.autograd.Function from outside torch and mmdet.
    """
    kind: type = type(module)
    return _runs_kernels(kind)


def calls_view(module: nn.Module) -> bool:
    """Whether the module's code calls Tensor.view(), of whatever tensor.

    It fails on a tensor whose channels lie last in memory, where it takes
    channels and images together, or channels and rows.
    """
    return any(
        'view' in code.co_names
        for method in _methods(type(module))
        for code in _codes(method.__code__)
    )


@functools.cache
def _reached(kind: type) -> frozenset[str]:
    reached = set()
    for base, names in _attributes(kind):
        if base == 'self' and PARTS.intersection(names[1:]):
            reached.add(names[0])
        elif base != 'self' and PARTS.intersection(names) - _OF_TENSORS:
            reached.add(EVERY)
    return frozenset(reached)


@functools.cache
def _neighbours(kind: type) -> frozenset[tuple[str, str]]:
    own = [names[0] for base, names in _attributes(kind) if base == 'self']
    return frozenset(zip(own, own[1:]))


@functools.cache
def _runs_kernels(kind: type) -> bool:
    return kind.__module__.startswith('mmcv.ops') or any(
        _is_foreign_function(method.__globals__.get(name))
        for method in _methods(kind)
        for code in _codes(method.__code__)
        for name in code.co_names
    )


def _is_foreign_function(value: object) -> bool:
    """Whether this is a torch.autograd.Function, or its apply()."""
    owner = getattr(value, '__self__', value)
    return (
        inspect.isclass(owner)
        and issubclass(owner, torch.autograd.Function)
        and not owner.__module__.startswith(_STRIDES_MINDED)
    )


def _methods(kind: type) -> Iterator[FunctionType]:
    """The functions that instances run in use.

    Those of torch and mmcv's bricks are left out: what they do is known.
    """
    for name in dir(kind):
        if name.startswith(_BEFORE_USE):
            continue
        method = inspect.getattr_static(kind, name)
        if isinstance(method, staticmethod | classmethod):
            method = method.__func__
        if isinstance(method, property):
            method = method.fget
        method = inspect.unwrap(method)
        if isinstance(method, FunctionType) and not (
            method.__module__.startswith(('torch.', 'mmcv.cnn.bricks.'))
        ):
            yield method


def _codes(code: CodeType) -> Iterator[CodeType]:
    """A function's code and that of the functions inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _attributes(kind: type) -> Iterator[tuple[str | None, list[str]]]:
    """All chains of attributes that a class's methods read.

    Yields:
        the variable's name, None for anything else, and the names in the
        chain: 'self' and ['conv', 'weight'] for ``self.conv.weight``.
    """
    for method in _methods(kind):
        for code in _codes(method.__code__):
            base, names = None, []
            for step in dis.get_instructions(code):
                if step.opname in ('LOAD_ATTR', 'LOAD_METHOD'):
                    names.append(step.argval)
                elif step.opname != 'CACHE':
                    if names:
                        yield base, names
                    is_variable = step.opname in ('LOAD_FAST', 'LOAD_DEREF')
                    base = step.argval if is_variable else None
                    names = []
