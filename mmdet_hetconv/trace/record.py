"""The one recorder of what a network does: modules, functions, and who reads what.

A forward pass is watched by module hooks and two modes of torch. Each call is noted
with the tensors that went in and came out. A tensor counts by its storage and its
version, which changes in place raise, so a tensor before and behind an in-place ReLU
are two values. Operators that no function of torch called (scripted functions,
extensions) are readers, too.
"""

import itertools
import weakref
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from ..kernels import PlannedConv2d
from ..layers import GroupPointwiseConv2d, HetConv2d
from .tensors import find_tensors, map_tensors

# Modules that are one operation, though they have children.
OPERATIONS = (HetConv2d, GroupPointwiseConv2d, PlannedConv2d)


class Value(NamedTuple):
    """A tensor as a call met it.

    Attributes:
        tensor, storage: numbers of the tensor and of the memory that it shares with
            its views.
        version: of the memory; each change in place raises it.
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
        number: in order of execution.
        target: the module or the function; None for the network's return.
        scope: where it was called.
        args, kwargs: with a :class:`Value` in place of each tensor.
        inputs, outputs: values that went in and came out.
        changed: numbers of the storages that it changed in place.
        seen: whether it is a module or a function of torch. Others read memory in
            whatever way.
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
        given: the values that it was given.
        args, kwargs: what it was given; outputs: what it returned. Copies, where
            they were asked for.
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
    """What a run did.

    Attributes:
        run: the outermost scope.
        calls: in order of execution; the last one stands for the return.
        touched: modules of which code outside of them took a parameter or a buffer.
    """

    def __init__(self) -> None:
        self.run = Scope(None, None)
        self.calls: list[Call] = []
        self.touched: set[nn.Module] = set()
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
        """Whether all that reads a value, or what calls that pass it on make of it, `ends`."""
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
        """What alone reads a call's only output, in the same scope; else None."""
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
    """Whether it is a module that handed on what it got, as Identity and Dropout do."""
    return (
        isinstance(call.target, nn.Identity | nn.Dropout | nn.Dropout2d)
        and call.inputs == call.outputs
        and not call.changed
    )


def has_own_code(module: nn.Module) -> bool:
    """Whether somebody replaced the instance's forward, or hooked it or a part of it."""
    return any(
        'forward' in vars(inner) or inner._forward_hooks or inner._forward_pre_hooks
        for inner in module.modules()
    )


def count_places(model: nn.Module) -> dict[nn.Module, list[tuple[nn.Module, str]]]:
    """By module, the parents that hold it and the names that it has there."""
    places: dict[nn.Module, list[tuple[nn.Module, str]]] = {}
    for parent in model.modules():
        for name, child in parent._modules.items():
            if child is not None:
                places.setdefault(child, []).append((parent, name))
    return places


def record(
    model: nn.Module, run: Callable[[], Any], copies: Callable[[nn.Module], bool] | None = None
) -> Recording:
    """Watch one forward pass, without gradients, in whatever mode the model is.

    Args:
        model: the network.
        run: runs it once, in whatever way.
        copies: of which modules with children inputs and outputs are kept, as copies.
    """
    recorder = _Recorder(model, copies or (lambda module: False))
    with recorder, torch.no_grad():
        returned = run()
    recorder.finish(returned)
    return recorder.recording


class _Numbers:
    """Numbers of tensors and of their memory; a new one never gets an old number."""

    def __init__(self) -> None:
        self._tensors: dict[int, tuple[weakref.ref[Tensor], int]] = {}
        # A weak reference keeps the storage's address from being given away again.
        self._storages: dict[int, tuple[StorageWeakRef, int]] = {}
        self._next = itertools.count()

    def of_tensor(self, tensor: Tensor) -> int:
        known = self._tensors.get(id(tensor))
        if known is None or known[0]() is not tensor:
            self._tensors[id(tensor)] = known = weakref.ref(tensor), next(self._next)
        return known[1]

    def of_storage(self, storage: torch.UntypedStorage) -> int:
        known = self._storages.get(storage._cdata)
        if known is None:
            known = StorageWeakRef(storage), next(self._next)
            self._storages[storage._cdata] = known
        return known[1]


class _Recorder:
    def __init__(self, model: nn.Module, copies: Callable[[nn.Module], bool]):
        self.recording = Recording()
        self.scope = self.recording.run
        self.copies = copies
        # Inside an operation, and inside a function of torch.
        self.depth = 0
        self.in_function = 0
        self.owners = {
            id(tensor): module
            for module in model.modules()
            for tensor in (*module._parameters.values(), *module._buffers.values())
            if tensor is not None
        }
        self.modules = self._modules_of(model)
        self._pending: list[tuple[list[Value], Any, Any, dict[int, tuple[Tensor, int]]]] = []
        self._numbers = _Numbers()

    @staticmethod
    def _modules_of(model: nn.Module) -> list[nn.Module]:
        """Those that are hooked; scripted ones take no hooks, their operators are seen."""
        inside = {
            part
            for module in model.modules()
            if isinstance(module, OPERATIONS)
            for part in module.modules()
            if part is not module
        }
        return [
            module
            for module in model.modules()
            if module not in inside and not isinstance(module, torch.jit.ScriptModule)
        ]

    def __enter__(self) -> '_Recorder':
        self._stack = ExitStack()
        for module in self.modules:
            is_scope = any(module.children()) and not isinstance(module, OPERATIONS)
            before, after = (self._enter, self._leave) if is_scope else (self._before, self._after)
            handles = (
                module.register_forward_pre_hook(before, with_kwargs=True),
                module.register_forward_hook(after, with_kwargs=True, always_call=True),
            )
            for handle in handles:
                self._stack.callback(handle.remove)
        self._stack.enter_context(_Operators(self))
        self._stack.enter_context(_Functions(self))
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def finish(self, returned: Any) -> None:
        self._note(Call(len(self.recording.calls), None, self.recording.run), returned, {})

    # Scopes.

    def _enter(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        if self.depth:
            return
        with torch._C.DisableTorchFunction():
            given = [self._value(tensor) for tensor in find_tensors((args, kwargs))]
        self.scope = Scope(module, self.scope, given=given)
        if self.copies(module):
            self.scope.args, self.scope.kwargs = self._copied((args, kwargs))
        self.recording.open(self.scope)

    def _leave(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if self.depth:
            return
        # An exception that the model caught has left scopes open.
        while self.scope.module is not module:
            assert self.scope.outer is not None
            self.scope = self.scope.outer
        if self.copies(module):
            self.scope.outputs = self._copied(output)
        assert self.scope.outer is not None
        self.scope = self.scope.outer

    def _copied(self, value: Any) -> Any:
        self.in_function += 1
        try:
            return map_tensors(lambda tensor: tensor.detach().clone(), value)
        finally:
            self.in_function -= 1

    # Operations that are modules.

    def _before(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        if not self.depth:
            self._pending.append(self._start(args, kwargs))
        self.depth += 1

    def _after(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        self.depth -= 1
        if not self.depth:
            self._end(module, *self._pending.pop(), output)

    # Functions and operators.

    def function(self, func: Any, args: Any, kwargs: Any) -> Any:
        self._look_at_parameters(args, kwargs)
        if self.depth or self.in_function or asks_no_values(func):
            return func(*args, **kwargs)
        started = self._start(args, kwargs)
        self.in_function += 1
        try:
            result = func(*args, **kwargs)
        finally:
            self.in_function -= 1
        self._end(func, *started, result)
        return result

    def operator(self, func: Any, args: Any, kwargs: Any) -> Any:
        if self.depth or self.in_function:
            return func(*args, **kwargs)
        started = self._start(args, kwargs)
        self.in_function += 1
        try:
            result = func(*args, **kwargs)
        finally:
            self.in_function -= 1
        self._end(func, *started, result, seen=False)
        return result

    def _look_at_parameters(self, args: Any, kwargs: Any) -> None:
        if self.depth:
            return
        with torch._C.DisableTorchFunction():
            for tensor in find_tensors((args, kwargs)):
                owner = self.owners.get(id(tensor))
                if owner is not None and owner is not self.scope.module:
                    self.recording.touched.add(owner)

    def _start(
        self, args: Any, kwargs: Any
    ) -> tuple[list[Value], Any, Any, dict[int, tuple[Tensor, int]]]:
        with torch._C.DisableTorchFunction():
            inputs: list[Value] = []
            before: dict[int, tuple[Tensor, int]] = {}

            def value_of(tensor: Tensor) -> Any:
                value = self._value(tensor)
                inputs.append(value)
                before[value.storage] = tensor, value.version
                return value

            described = map_tensors(value_of, (tuple(args), dict(kwargs)))
            return inputs, *described, before

    def _end(
        self,
        target: Any,
        inputs: list[Value],
        args: Any,
        kwargs: Any,
        before: dict[int, tuple[Tensor, int]],
        output: Any,
        seen: bool = True,
    ) -> None:
        number = len(self.recording.calls)
        call = Call(number, target, self.scope, args, kwargs, inputs, seen=seen)
        with torch._C.DisableTorchFunction():
            call.changed = {
                storage
                for storage, (tensor, version) in before.items()
                if self._value(tensor).version != version
            }
        self._note(call, (), output)

    def _note(self, call: Call, given: Any, output: Any) -> None:
        with torch._C.DisableTorchFunction():
            call.inputs += [self._value(tensor) for tensor in find_tensors(given)]
            call.outputs += [self._value(tensor) for tensor in find_tensors(output)]
        if call.is_module or call.target is None or call.inputs or call.outputs:
            self.recording.add(call)

    def _value(self, tensor: Tensor) -> Value:
        number = self._numbers.of_tensor(tensor)
        shape = tuple(tensor.shape)
        try:
            storage = tensor.untyped_storage()
            version = tensor._version
        except (RuntimeError, NotImplementedError):
            # Inference tensors have no version, sparse ones no storage: a value by itself.
            return Value(number, -1 - number, -len(self.recording.calls) - 1, shape)
        return Value(number, self._numbers.of_storage(storage), version, shape)


class _Functions(TorchFunctionMode):
    """Hands functions of torch to the recorder while it is entered."""

    def __init__(self, recorder: _Recorder):
        super().__init__()
        self.recorder = recorder

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        return self.recorder.function(func, args, kwargs or {})


class _Operators(TorchDispatchMode):
    """Hands operators to the recorder while it is entered."""

    def __init__(self, recorder: _Recorder):
        super().__init__()
        self.recorder = recorder

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        return self.recorder.operator(func, args, kwargs or {})


def asks_no_values(func: Any) -> bool:
    """Whether a function asks for a tensor's shape, type or place only."""
    if getattr(func, '__name__', '') == '__get__':
        return func not in _VIEWS
    return func in _ASKING


# Attributes that are tensors.
_VIEWS = frozenset(
    getattr(Tensor, name).__get__ for name in ('T', 'mT', 'H', 'mH', 'real', 'imag', 'data', 'grad')
)
_ASKING = frozenset(
    (
        *(Tensor.dim, Tensor.size, Tensor.stride, Tensor.numel, Tensor.is_contiguous),
        *(Tensor.__len__, Tensor.__hash__, Tensor.ndimension, Tensor.is_floating_point),
        *(Tensor.element_size, Tensor.get_device, Tensor.storage_offset, Tensor.is_complex),
        *(torch.is_floating_point, torch.is_complex, torch.is_tensor, torch.numel),
    )
)
