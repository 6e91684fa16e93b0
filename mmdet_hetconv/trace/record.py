"""The one recorder of what a network does: modules, functions, and who reads what.

Module hooks and two modes of torch observe one forward pass and note each call with the
tensors that it reads and writes. A tensor is identified by its storage and its version,
which in-place changes raise: before and behind an in-place ReLU it is two values.
Operators that no function of torch called (scripted code, extensions) are readers, too.
"""

import itertools
import threading
import weakref
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from .kinds import OPERATIONS
from .modules import outer_modules
from .recording import Call, Recording, Scope, Value
from .sizes import ASKING_SIZES, ASKING_VALUES, as_sizes
from .tensors import find_tensors, map_tensors


def record(
    model: nn.Module, run: Callable[[], Any], copies: Callable[[nn.Module], bool] | None = None
) -> Recording:
    """Record one forward pass without gradients; the model stays in its mode.

    Args:
        model: the network.
        run: runs it once.
        copies: selects modules with children whose arguments and results are copied.

    Raises:
        ValueError: the model runs modules in another thread, which modes do not reach.
    """
    recorder = _Recorder(model, copies or (lambda module: False))
    with recorder, torch.no_grad():
        returned = run()
    recorder.finish(returned)
    return recorder.recording


class _Numbers:
    """Numbers tensors and storages; a number is never used twice."""

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


class _Started(NamedTuple):
    """What is known of a call before it is made.

    Attributes:
        before: by storage, a tensor in it and its version.
    """

    inputs: list[Value]
    args: Any
    kwargs: Any
    before: dict[int, tuple[Tensor, int]]


class _Recorder:
    def __init__(self, model: nn.Module, copies: Callable[[nn.Module], bool]):
        self.model = model
        self.recording = Recording()
        self.scope = self.recording.run
        self.copies = copies
        # Inside an operation, and inside a function of torch.
        self.depth = 0
        self.in_function = False
        self.thread = threading.get_ident()
        self.left_thread = False
        self.is_running = False
        self.owners = {
            id(tensor): module
            for module in model.modules()
            for tensor in (*module._parameters.values(), *module._buffers.values())
            if tensor is not None
        }
        self._notice = weakref.WeakMethod(self._note_branch)
        self._pending: list[_Started] = []
        self._numbers = _Numbers()

    def __enter__(self) -> '_Recorder':
        self._stack = ExitStack()
        for module in outer_modules(self.model):
            if isinstance(module, torch.jit.ScriptModule):
                continue  # takes no hooks
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
        self.is_running = True
        return self

    def __exit__(self, *error: object) -> None:
        self.is_running = False
        self._stack.close()

    def finish(self, returned: Any) -> None:
        if self.left_thread:
            raise ValueError(
                f'{type(self.model).__name__} runs modules in another thread, where what reads '
                'their outputs cannot be seen'
            )
        # Tensors kept as attributes can be read from outside.
        kept = [
            value
            for module in self.model.modules()
            for name, value in vars(module).items()
            if name not in _OF_ALL_MODULES and isinstance(value, Tensor | list | tuple | dict)
        ]
        call = Call(len(self.recording.calls), None, self.recording.run)
        call.inputs += [self._value(tensor) for tensor in find_tensors([returned, kept])]
        self.recording.add(call)

    def _is_ignored(self) -> bool:
        """Whether a module is called inside an operation, or in another thread."""
        if threading.get_ident() != self.thread:
            self.left_thread = True
            return True
        return bool(self.depth)

    # Modules with children.

    def _enter(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        if self._is_ignored():
            return
        with torch._C.DisableTorchFunction():
            given = [self._value(tensor) for tensor in find_tensors((args, kwargs))]
        flags = any(isinstance(value, bool) for value in (*args, *kwargs.values()))
        if flags and self.scope.module in self.recording.branching:
            self.recording.branching.add(module)
        self.scope = Scope(module, self.scope, given=given)
        if self.copies(module):
            self.scope.args, self.scope.kwargs = self._copied((args, kwargs))
        self.recording.open(self.scope)

    def _leave(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if self._is_ignored():
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
        return self._inside(map_tensors, lambda tensor: tensor.detach().clone(), value)

    # Modules that are one operation.

    def _before(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        if not self._is_ignored():
            self._pending.append(self._start(args, kwargs))
        if not self.left_thread:
            self.depth += 1

    def _after(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if self.left_thread:
            return
        self.depth -= 1
        if not self.depth:
            self._end(module, self._pending.pop(), output)

    # Functions of torch, and operators that none of them called.

    def call(self, func: Any, args: Any, kwargs: Any, seen: bool) -> Any:
        """Make a call and note it.

        Args:
            seen: whether it is a function of torch.
        """
        if seen:
            self._look_at_parameters(args, kwargs)
        if self.depth or self.in_function:
            return func(*args, **kwargs)
        if func in ASKING_VALUES:
            self._note_branch()
        if func in ASKING_SIZES:
            return as_sizes(func(*args, **kwargs), self._notice)
        if seen and asks_no_values(func):
            return func(*args, **kwargs)
        started = self._start(args, kwargs)
        result = self._inside(func, *args, **kwargs)
        self._end(func, started, result, seen)
        return result

    def _note_branch(self) -> None:
        """Note that the current code reads a value or compares a size."""
        if self.is_running and not self.depth and not self.in_function:
            self.recording.branching.add(self.scope.module)

    def _inside(self, func: Any, *args: Any, **kwargs: Any) -> Any:
        before, self.in_function = self.in_function, True
        try:
            return func(*args, **kwargs)
        finally:
            self.in_function = before

    def _look_at_parameters(self, args: Any, kwargs: Any) -> None:
        if self.depth:
            return
        with torch._C.DisableTorchFunction():
            for tensor in find_tensors((args, kwargs)):
                owner = self.owners.get(id(tensor))
                if owner is not None and owner is not self.scope.module:
                    self.recording.touched.add(owner)

    def _start(self, args: Any, kwargs: Any) -> _Started:
        with torch._C.DisableTorchFunction():
            inputs: list[Value] = []
            before: dict[int, tuple[Tensor, int]] = {}

            def value_of(tensor: Tensor) -> Any:
                value = self._value(tensor)
                inputs.append(value)
                before[value.storage] = tensor, value.version
                return value

            args, kwargs = map_tensors(value_of, (tuple(args), dict(kwargs)))
            return _Started(inputs, args, kwargs, before)

    def _end(self, target: Any, started: _Started, output: Any, seen: bool = True) -> None:
        inputs, args, kwargs, before = started
        number = len(self.recording.calls)
        call = Call(number, target, self.scope, args, kwargs, inputs, seen=seen)
        with torch._C.DisableTorchFunction():
            call.changed = {
                storage
                for storage, (tensor, version) in before.items()
                if self._value(tensor).version != version
            }
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
        return self.recorder.call(func, args, kwargs or {}, seen=True)


class _Operators(TorchDispatchMode):
    """Hands operators to the recorder while it is entered."""

    def __init__(self, recorder: _Recorder):
        super().__init__()
        self.recorder = recorder

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        return self.recorder.call(func, args, kwargs or {}, seen=False)


def asks_no_values(func: Any) -> bool:
    """Whether a function asks for a tensor's shape, type or place only."""
    if getattr(func, '__name__', '') == '__get__':
        return func not in _VIEWS
    return func in _ASKING


_OF_ALL_MODULES = frozenset(vars(nn.Module()))
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
