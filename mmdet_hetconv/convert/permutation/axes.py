"""Where the channels of a network may stand in any order.

Between convolutions and those that read their outputs, through batch norms,
activations, pooling and sums only, and where nothing else looks at them, least of
all what the network returns. A sum has one order: the convolutions of a residual
stream share theirs, and so do the inputs of a head that reads several levels.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import reduce

import torch
from torch import Tensor, nn

from ...trace import Call, Recording, fewest, record
from ...trace.kinds import NORMS, SELECTING
from ...trace.modules import has_own_code
from ...trace.recording import Value, is_idle
from ..calibration.dense_trace import Forward
from .fingerprint import passes_of, take_fingerprint

# What treats every channel alike, besides batch norm.
CHANNEL_WISE = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SiLU, nn.GELU, nn.Mish, nn.Softplus),
    *(nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.Sigmoid, nn.Tanh),
    *(nn.Identity, nn.Dropout, nn.Dropout2d, nn.ZeroPad2d, nn.ReflectionPad2d, nn.Upsample),
    *(nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d),
)
# The same as functions, of one map or position by position of several.
FUNCTIONS = frozenset(
    ('relu', 'relu6', 'leaky_relu', 'elu', 'silu', 'gelu', 'mish', 'softplus', 'hardswish')
    + ('hardsigmoid', 'hardtanh', 'sigmoid', 'tanh', 'clamp', 'abs', 'square', 'sqrt', 'exp')
    + ('max_pool2d', 'avg_pool2d', 'adaptive_avg_pool2d', 'adaptive_max_pool2d', 'interpolate')
    + ('dropout', 'contiguous', 'clone', 'detach', 'mean', 'amax', 'sum')
    + ('add', 'sub', 'mul', 'div', 'truediv', 'maximum', 'minimum', 'neg')
)


@dataclass(eq=False)
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
    """Follows the channels of convolutions through recordings."""

    def __init__(self, model: nn.Module, recordings: list[Recording]):
        self.axes: list[Axis] = []
        self.names = {module: name for name, module in model.named_modules()}
        touched = {module for recording in recordings for module in recording.touched}
        holders = Counter(id(p) for m in self.names for p in m._parameters.values())
        # Others stay as they are: somebody else has a say in what they do.
        self.movable = {
            module
            for module in self.names
            if module not in touched
            and not has_own_code(module)
            and not any(holders[id(p)] > 1 for p in module._parameters.values() if p is not None)
        }
        self._of: dict[tuple[int, int], Axis] = {}  # by storage and version
        self._bound: dict[nn.Module, Axis | None] = {}
        self._written: dict[nn.Module, Axis] = {}
        for recording in recordings:
            self._of.clear()
            for call in recording.calls:
                if not is_idle(call):
                    self._follow(call)

    def _axis_of(self, value: Value) -> Axis | None:
        axis = self._of.get((value.storage, value.version))
        return axis.root() if axis else None

    def _follow(self, call: Call) -> None:
        inputs = list(dict.fromkeys(call.inputs))
        axes = [self._axis_of(value) for value in inputs]
        axis = None
        if call.target in self.movable and len(inputs) == len(call.outputs) == 1:
            axis = self._through_module(call.target, axes[0])
        elif is_channel_wise(call) and len(call.outputs) == 1:
            axis = self._join(inputs, axes, call.outputs[0])
        if axis is None:
            _open(axes)
        else:
            (output,) = call.outputs
            self._of[output.storage, output.version] = axis

    def _through_module(self, module: nn.Module, axis: Axis | None) -> Axis | None:
        """The axis that a module puts out; None if it opens that of its input."""
        name = self.names[module]
        if type(module) is nn.Conv2d and module.groups == 1:
            axis = self._bind(module, axis)
            if axis is not None:
                axis.readers.add(name)
            if module not in self._written:
                self._written[module] = Axis(module.out_channels, {name})
                self.axes.append(self._written[module])
            return self._written[module].root()
        if type(module) in NORMS:
            axis = self._bind(module, axis)
            if axis is not None:
                axis.norms.add(name)
            return axis
        return axis if type(module) in CHANNEL_WISE else None

    def _bind(self, module: nn.Module, axis: Axis | None) -> Axis | None:
        """The one axis that a module works on in all of its calls."""
        if module in self._bound:
            axis = self._one(self._bound[module], axis)
        self._bound[module] = axis
        return axis

    def _join(self, inputs: list[Value], axes: list[Axis | None], output: Value) -> Axis | None:
        """The axis of what is computed channel by channel; None if it is not."""
        joined = []
        for value, axis in zip(inputs, axes):
            if len(value.shape) == len(output.shape) == 4 and value.shape[1] == output.shape[1] > 1:
                joined.append(axis)
            elif axis is not None or (value.shape and value.shape[1:2] != (1,)):
                return None
        return reduce(self._one, joined) if joined else None

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


def is_channel_wise(call: Call) -> bool:
    """Whether it is a function that treats every channel alike, given shapes that fit."""
    name = getattr(call.target, '__name__', '').strip('_')
    return call.seen and not call.is_module and (name in FUNCTIONS or name[1:] in FUNCTIONS)


def _open(axes: list[Axis | None]) -> None:
    for axis in axes:
        if axis is not None:
            axis.root().open = True


def _random_cycle(size: int, generator: torch.Generator) -> Tensor:
    """An order that leaves nothing where it was, (size,)."""
    chain = torch.randperm(size, generator=generator)
    order = torch.empty_like(chain)
    order[chain] = chain.roll(1)
    return order


class Axes:
    """The axes of a network, and what it computes.

    Attributes:
        found: all axes, those with readers and nothing else not `open`.

    Args:
        model: in eval mode.
        batch, forward: what it is run on, and on noise like that.

    Raises:
        ValueError: the network returns no tensor.
    """

    def __init__(self, model: nn.Module, batch: object, forward: Forward):
        self.model = model
        self._modules = dict(model.named_modules())
        self._passes = passes_of(model, batch, forward)
        recordings = [record(model, run) for run in self._passes]
        self._ranks = any(
            getattr(call.target, '__name__', '') in SELECTING or not call.seen
            for recording in recordings
            for call in recording.calls
        )
        self._truth = [take_fingerprint(model, run) for run in self._passes]
        finder = _AxisFinder(model, recordings)
        self.found = [axis for axis in finder.axes if axis.into is None]
        for axis in self.found:
            # A layer between channels of one order has no best assignment in one step.
            axis.open |= bool(axis.writers & axis.readers) or not axis.readers
        self._shuffle()

    @torch.no_grad()
    def permute(self, orders: Mapping[Axis, Tensor]) -> bool:
        """Put channels in other orders, in place; as they were if that changes the function.

        Returns:
            bool: whether it is the same function.
        """
        for axis, order in orders.items():
            axis.permute(self._modules, order)
        sizes = {axis.size for axis in orders}
        permuted = (take_fingerprint(self.model, run) for run in self._passes)
        if all(a.is_like(b, sizes, self._ranks) for a, b in zip(self._truth, permuted)):
            return True
        self._put_back(orders)
        return False

    @torch.no_grad()
    def _put_back(self, orders: Mapping[Axis, Tensor]) -> None:
        for axis, order in orders.items():
            axis.permute(self._modules, order.argsort())

    def _shuffle(self) -> None:
        """Open the fewest axes without which the network survives any order of the others."""
        generator = torch.Generator().manual_seed(0)
        closed = [axis for axis in self.found if not axis.open]

        def survives(opened: set[Axis]) -> bool:
            kept = [axis for axis in closed if axis not in opened]
            orders = {axis: _random_cycle(axis.size, generator) for axis in kept}
            if not self.permute(orders):
                return False
            self._put_back(orders)
            return True

        for axis in fewest(closed, survives):
            axis.open = True


def find_axes(model: nn.Module, batch: object, forward: Forward) -> list[Axis]:
    """All axes of a network, see :class:`Axes`."""
    return Axes(model, batch, forward).found
