"""A recorded run: calls of operations, and the tensors that they read and wrote."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import nn


class Value(NamedTuple):
    """A tensor at the time of a call.

    Attributes:
        tensor: number of the tensor.
        storage: number of its memory, which views share.
        version: of the memory; each in-place change raises it.
        shape: of the tensor.
    """

    tensor: int
    storage: int
    version: int
    shape: tuple[int, ...]


@dataclass(eq=False)
class Call:
    """One call of an operation.

    Attributes:
        number: position in the order of execution.
        target: module or function; None for the return of the network.
        scope: where it was called.
        args, kwargs: with a :class:`Value` in place of each tensor.
        inputs, outputs: values read and written.
        changed: numbers of the storages that it changed in place.
        seen: whether it is a module or a function of torch. Other operators (scripted
            code, extensions) may read memory in any way.
    """

    number: int
    target: Any
    scope: 'Scope' = field(repr=False)
    args: Any = ()
    kwargs: Any = field(default_factory=dict)
    inputs: list[Value] = field(default_factory=list)
    outputs: list[Value] = field(default_factory=list)
    changed: set[int] = field(default_factory=set)
    seen: bool = True

    @property
    def is_module(self) -> bool:
        return isinstance(self.target, nn.Module)


@dataclass(eq=False)
class Scope:
    """One call of a module with children, or the whole run.

    Attributes:
        module: None for the run itself.
        steps: calls and scopes inside, in order.
        given: values of its arguments.
        args, kwargs, outputs: copies of its arguments and results, if requested.
    """

    module: nn.Module | None
    outer: 'Scope | None' = field(repr=False)
    steps: list['Call | Scope'] = field(default_factory=list)
    given: list[Value] = field(default_factory=list)
    args: Any = ()
    kwargs: Any = field(default_factory=dict)
    outputs: Any = None

    def calls(self) -> list[Call]:
        """All calls inside, at any depth."""
        found: list[Call] = []
        for step in self.steps:
            found += [step] if isinstance(step, Call) else step.calls()
        return found


class Recording:
    """One recorded run.

    Attributes:
        run: the outermost scope.
        calls: in order of execution; the last one stands for the return.
        touched: modules whose parameters or buffers were used by code outside of them.
        branching: modules whose own code read a tensor's value or compared a size, so
            it may take another path on other images. None: code outside of modules.
    """

    def __init__(self) -> None:
        self.run = Scope(None, None)
        self.calls: list[Call] = []
        self.touched: set[nn.Module] = set()
        self.branching: set[nn.Module | None] = set()
        self._of: dict[nn.Module, list[Call]] = {}
        self._scopes: dict[nn.Module, list[Scope]] = {}
        self._reading: dict[tuple[int, int], list[Call]] = {}

    def add(self, call: Call) -> None:
        self.calls.append(call)
        call.scope.steps.append(call)
        if call.is_module:
            self._of.setdefault(call.target, []).append(call)
        for key in {(value.storage, value.version) for value in call.inputs}:
            self._reading.setdefault(key, []).append(call)

    def open(self, scope: Scope) -> None:
        assert scope.outer is not None and scope.module is not None
        scope.outer.steps.append(scope)
        self._scopes.setdefault(scope.module, []).append(scope)

    def called(self) -> set[nn.Module]:
        """All modules that were called."""
        return {*self._of, *self._scopes}

    def calls_of(self, module: nn.Module) -> list[Call]:
        """The calls of an operation."""
        return self._of.get(module, [])

    def scopes_of(self, module: nn.Module) -> list[Scope]:
        """The calls of a module with children."""
        return self._scopes.get(module, [])

    def readers(self, value: Value, after: int = -1) -> list[Call]:
        """Calls that read a value, or a view of it, before it was changed."""
        found = self._reading.get((value.storage, value.version), [])
        return [call for call in found if call.number > after]

    def ends_in(
        self, value: Value, ends: Callable[[Call], bool], passes: Callable[[Call], bool]
    ) -> bool:
        """Whether each path of a value through calls that pass it on reaches one that `ends`."""
        done: set[Value] = set()
        values = [value]
        while values:
            value = values.pop()
            if value in done:
                continue
            done.add(value)
            for call in self.readers(value):
                if is_idle(call) or ends(call):
                    continue
                if not passes(call):
                    return False
                values += call.outputs
        return True

    def reader(self, call: Call) -> Call | None:
        """The only reader of a call's only output, if it is in the same scope; else None."""
        if len(call.outputs) != 1:
            return None
        (value,) = call.outputs
        readers = self.readers(value, call.number)
        while readers and is_idle(readers[0]):
            readers = readers[1:]
        if len(readers) != 1 or readers[0].scope is not call.scope:
            return None
        return readers[0] if value.tensor in {v.tensor for v in readers[0].inputs} else None


def is_idle(call: Call) -> bool:
    """Whether the module returned its input unchanged, as Identity and Dropout do."""
    return (
        isinstance(call.target, nn.Identity | nn.Dropout | nn.Dropout2d)
        and call.inputs == call.outputs
        and not call.changed
    )
