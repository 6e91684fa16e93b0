"""Where the channels of a network may stand in any order.

Between convolutions and those that read their outputs, through batch norms,
activations, pooling and sums only, and where nothing else looks at them, least of
all what the network returns. A sum has one order: the convolutions of a residual
stream share theirs, and so do the inputs of a head that reads several levels.
"""

import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from .fingerprint import ForwardHook, run_watched, take_fingerprint
from .trace import Forward

# What treats every channel alike, besides batch norm.
CHANNEL_WISE = (
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.SiLU,
    nn.GELU,
    nn.Hardswish,
    nn.Sigmoid,
    nn.Tanh,
    nn.Identity,
    nn.Dropout,
    nn.Dropout2d,
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    nn.Upsample,
)
# The same as functions, called between modules.
FUNCTIONS = {
    F.adaptive_avg_pool2d,
    F.avg_pool2d,
    F.dropout,
    F.gelu,
    F.hardswish,
    F.interpolate,
    F.leaky_relu,
    F.max_pool2d,
    F.relu,
    F.relu6,
    F.silu,
    Tensor.relu,
    Tensor.relu_,
    Tensor.sigmoid,
    Tensor.tanh,
    torch.relu,
    torch.relu_,
    torch.sigmoid,
    torch.tanh,
}
# Whose operands get one order.
SUMS = {torch.add, Tensor.add, Tensor.add_, Tensor.__add__, Tensor.__radd__, Tensor.__iadd__}


@dataclass
class Axis:
    """The channels between convolutions, which may be put in another order.

    Attributes:
        size: the number of channels.
        writers: convolutions that have them as filters.
        norms: batch norms on them.
        readers: convolutions that have them as channels.
        open: whether something else was seen to use them.
        into: the axis that these channels turned out to be, too.
    """

    size: int
    writers: set[str] = field(default_factory=set)
    norms: set[str] = field(default_factory=set)
    readers: set[str] = field(default_factory=set)
    open: bool = False
    into: 'Axis | None' = None

    def root(self) -> 'Axis':
        """The axis that counts."""
        return self if self.into is None else self.into.root()

    def permute(self, modules: dict[str, nn.Module], order: Tensor) -> None:
        """Put the channels in another order, in place."""
        for name in self.writers:
            for parameter in modules[name].parameters():
                parameter.copy_(parameter[order.to(parameter.device)])
        for name in self.norms:
            norm = modules[name]
            for value in (*norm.parameters(), *norm.buffers()):
                if value.dim() == 1:  # all but num_batches_tracked
                    value.copy_(value[order.to(value.device)])
        for name in self.readers:
            conv = modules[name]
            assert isinstance(conv, nn.Conv2d)
            conv.weight.copy_(conv.weight[:, order.to(conv.weight.device)])


class _AxisFinder:
    """Follows tensors through the modules of one forward pass."""

    def __init__(self) -> None:
        self.axes: list[Axis] = []
        self._tensors: dict[int, tuple[weakref.ref[Tensor], Axis]] = {}
        self._storages: dict[StorageWeakRef, Axis] = {}
        self._read: dict[str, Axis | None] = {}
        self._written: dict[str, Axis] = {}

    def _axis_of(self, x: object) -> Axis | None:
        reference, axis = self._tensors.get(id(x), (None, None))
        return axis.root() if axis and reference and reference() is x else None

    def _mark(self, x: Tensor, axis: Axis) -> None:
        self._tensors[id(x)] = weakref.ref(x), axis
        self._storages[StorageWeakRef(x.untyped_storage())] = axis

    def open_returned(self, outputs: list[Tensor]) -> None:
        """Take note of what the network returns, whole or views of it."""
        for y in outputs:
            axis = self._storages.get(StorageWeakRef(y.untyped_storage()))
            if axis is not None:
                axis.root().open = True

    def follow_function(self, func: object, args: Sequence[object], y: object) -> None:
        """Take note of one call of a function."""
        tensors = [x for x in args[:2] if isinstance(x, Tensor)]
        axes = [self._axis_of(x) for x in tensors]
        if func in FUNCTIONS or (func in SUMS and len(axes) == 1):
            axis = axes[0] if axes else None
        elif func in SUMS:
            axis = self._one(*axes)
        else:
            return
        if axis is not None and isinstance(y, Tensor):
            self._mark(y, axis)

    def _one(self, a: Axis | None, b: Axis | None) -> Axis | None:
        """What two axes are from now on, of which one order is asked."""
        if a is None or b is None or a.size != b.size:
            _open([a, b])
            return None
        a, b = a.root(), b.root()
        if a is not b:
            b.into = a
            a.open |= b.open
            for mine, more in ((a.writers, b.writers), (a.norms, b.norms), (a.readers, b.readers)):
                mine |= more
        return a

    def follow(self, name: str, module: nn.Module, args: tuple[Any, ...], y: object) -> None:
        """Take note of one call of a module without children."""
        axes = [self._axis_of(x) for x in args if isinstance(x, Tensor)]
        axis = axes[0] if len(axes) == 1 else None
        if not isinstance(y, Tensor):
            _open(axes)
        elif isinstance(module, nn.Conv2d) and module.groups == 1:
            if name in self._read:
                axis = self._one(self._read[name], axis)
            self._read[name] = axis
            if axis is not None:
                axis.readers.add(name)
            if name not in self._written:
                self._written[name] = Axis(module.out_channels, {name})
                self.axes.append(self._written[name])
            self._mark(y, self._written[name].root())
        elif axis is not None and isinstance(module, _BatchNorm):
            axis.norms.add(name)
            self._mark(y, axis)
        elif axis is not None and isinstance(module, CHANNEL_WISE):
            self._mark(y, axis)
        else:
            _open(axes)


class _FunctionWatch(TorchFunctionMode):
    """Tells a finder of the functions that are called while it is entered."""

    def __init__(self, finder: _AxisFinder):
        super().__init__()
        self.finder = finder

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        y = func(*args, **(kwargs or {}))
        self.finder.follow_function(func, args, y)
        return y


def _open(axes: Sequence[Axis | None]) -> None:
    for axis in axes:
        if axis is not None:
            axis.root().open = True


def _random_cycle(size: int, generator: torch.Generator) -> Tensor:
    """An order that leaves nothing where it was, (size,)."""
    chain = torch.randperm(size, generator=generator)
    order = torch.empty_like(chain)
    order[chain] = chain.roll(1)
    return order


def find_axes(model: nn.Module, batch: object, forward: Forward) -> list[Axis]:
    """All axes of a network, those with readers and nothing else not `open`.

    What else a network does between its modules (a concatenation, a slice) is not
    followed. So every axis that looks closed is shuffled, and is open after all
    if an output or an activation's norm then changes. The weights are put back
    as they were.

    Raises:
        ValueError: the network returns no tensor.
    """
    finder = _AxisFinder()

    def hook(name: str) -> ForwardHook:
        def note(module: nn.Module, args: tuple[Any, ...], y: object) -> None:
            finder.follow(name, module, args, y)

        return note

    with _FunctionWatch(finder):
        returned = run_watched(model, batch, forward, hook)
    finder.open_returned(returned)
    modules = dict(model.named_modules())
    generator = torch.Generator().manual_seed(0)
    truth = take_fingerprint(model, batch, forward)
    axes = [axis for axis in finder.axes if axis.into is None]
    for axis in axes:
        # A layer between channels of one order has no best assignment in one step.
        axis.open |= bool(axis.writers & axis.readers)
    closed = [axis for axis in axes if axis.readers and not axis.open]

    def survives(axes: list[Axis]) -> bool:
        orders = [_random_cycle(axis.size, generator) for axis in axes]
        for axis, order in zip(axes, orders):
            axis.permute(modules, order)
        shuffled = take_fingerprint(model, batch, forward)
        for axis, order in zip(axes, orders):
            axis.permute(modules, order.argsort())
        return truth.is_like(shuffled, {axis.size for axis in axes})

    with torch.no_grad():
        if not survives(closed):
            for axis in closed:
                axis.open = not survives([axis])
    for axis in axes:
        axis.open |= not axis.readers
    return axes
