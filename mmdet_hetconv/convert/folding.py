"""Permutations of channels folded into the weights of a dense network.

Between a convolution and those that read its output, through batch norms,
activations and pooling only, the channels may stand in any order: filters,
norm parameters and the readers' channels permuted alike compute the same
function. Which channels share a block of a HetConv layer can so be chosen at
no cost at run time. A HetConv layer of the 'permuted' arrangement keeps the
order itself where it cannot be folded, and permutes while it runs.
"""

import itertools
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..layers import HetConv2d
from .pairing import find_pairs
from .patches import sample_positions, take_patches
from .permute import Loss, choose_blocks, in_order, lost_energy
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
# How far the norms of activations may move under a permutation.
TOLERANCE = 1e-4
# Output positions per layer that covariances are taken from.
POSITIONS = 10_000


@dataclass
class Axis:
    """The channels between convolutions, which may be put in another order.

    Attributes:
        size: the number of channels.
        writers: convolutions that have them as filters.
        norms: batch norms on them.
        readers: convolutions that have them as channels.
        open: whether something else was seen to use them.
    """

    size: int
    writers: set[str] = field(default_factory=set)
    norms: set[str] = field(default_factory=set)
    readers: set[str] = field(default_factory=set)
    open: bool = False

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
            weight = modules[name].weight
            weight.copy_(weight[:, order.to(weight.device)])


class _AxisFinder:
    """Follows tensors through the modules of one forward pass."""

    def __init__(self) -> None:
        self.axes: list[Axis] = []
        self._tensors: dict[int, tuple[weakref.ref, Axis]] = {}
        self._read: dict[str, Axis | None] = {}
        self._written: dict[str, Axis] = {}

    def _axis_of(self, x: object) -> Axis | None:
        reference, axis = self._tensors.get(id(x), (None, None))
        return axis if reference is not None and reference() is x else None

    def _mark(self, x: Tensor, axis: Axis) -> None:
        self._tensors[id(x)] = weakref.ref(x), axis

    def follow(
        self, name: str, module: nn.Module, args: tuple, y: object
    ) -> None:
        """Take note of one call of a module without children."""
        axes = [self._axis_of(x) for x in args if isinstance(x, Tensor)]
        axis = axes[0] if len(axes) == 1 else None
        if isinstance(module, nn.Conv2d) and module.groups == 1:
            if self._read.setdefault(name, axis) is not axis:
                # Shared by several places: all of them stay as they are.
                for each in (axis, self._read[name]):
                    if each is not None:
                        each.open = True
            if axis is not None:
                axis.readers.add(name)
            if name not in self._written:
                self._written[name] = Axis(module.out_channels, {name})
                self.axes.append(self._written[name])
            self._mark(y, self._written[name])
        elif axis is not None and isinstance(module, _BatchNorm):
            axis.norms.add(name)
            self._mark(y, axis)
        elif axis is not None and isinstance(module, CHANNEL_WISE):
            self._mark(y, axis)
        else:
            for axis in axes:
                if axis is not None:
                    axis.open = True


def _watch_leaves(model: nn.Module, hook) -> list:
    return [
        module.register_forward_hook(hook(name))
        for name, module in model.named_modules()
        if not any(module.children())
    ]


def _run(model: nn.Module, batch: object, forward: Forward, hook) -> None:
    handles = _watch_leaves(model, hook)
    try:
        with torch.no_grad():
            forward(model, batch)
    finally:
        for handle in handles:
            handle.remove()


def _fingerprint(
    model: nn.Module, batch: object, forward: Forward
) -> list[float]:
    """Norms of activations, which a right permutation does not change.

    Of all modules that work on the images; what is done with single RoIs
    also depends on rounding, by way of their ranking.
    """
    norms: list[float] = []
    images = 0

    def hook(name: str):
        def note(module: nn.Module, args: tuple, y: object) -> None:
            nonlocal images
            if isinstance(y, Tensor) and y.dim():
                images = images or len(y)
                if len(y) == images:
                    norms.append(y.double().norm().item())

        return note

    _run(model, batch, forward, hook)
    return norms


def _alike(one: list[float], other: list[float]) -> bool:
    return len(one) == len(other) and all(
        abs(a - b) <= TOLERANCE * max(abs(a), abs(b), 1e-12)
        for a, b in zip(one, other)
    )


def find_axes(model: nn.Module, batch: object, forward: Forward) -> list[Axis]:
    """All axes of a network, those with readers and nothing else not `open`.

    What a network does between its modules (a sum, a concatenation) cannot be
    seen from outside. So every axis that looks closed is shuffled, and is
    open after all if an activation's norm then changes. The weights are put
    back as they were.
    """
    finder = _AxisFinder()

    def hook(name: str):
        def note(module: nn.Module, args: tuple, y: object) -> None:
            finder.follow(name, module, args, y)

        return note

    _run(model, batch, forward, hook)
    modules = dict(model.named_modules())
    generator = torch.Generator().manual_seed(0)
    truth = _fingerprint(model, batch, forward)
    closed = [axis for axis in finder.axes if axis.readers and not axis.open]

    def survives(axes: list[Axis]) -> bool:
        orders = [
            torch.randperm(axis.size, generator=generator) for axis in axes
        ]
        for axis, order in zip(axes, orders):
            axis.permute(modules, order)
        same = _alike(truth, _fingerprint(model, batch, forward))
        for axis, order in zip(axes, orders):
            axis.permute(modules, order.argsort())
        return same

    with torch.no_grad():
        if not survives(closed):
            for axis in closed:
                axis.open = not survives([axis])
    for axis in finder.axes:
        axis.open |= not axis.readers
    return finder.axes


def _tap_covariances(
    dense: nn.Module,
    pairs: dict[str, HetConv2d],
    batches: Sequence,
    forward: Forward,
) -> dict[str, Tensor]:
    """Covariance of every input channel's values at the taps, by layer.

    Shape:
        of a layer: (M, T, T), the taps row by row.
    """
    sums: dict[str, list] = {}
    quota = -(-POSITIONS // len(batches))
    generator = torch.Generator().manual_seed(0)

    def watch(name: str, layer: HetConv2d):
        def hook(module: nn.Module, args: tuple, y: Tensor) -> None:
            total = len(y) * y.shape[-2] * y.shape[-1]
            positions = sample_positions(total, quota, generator)
            patches = take_patches(layer, args[0], positions)
            middle = patches.around.shape[2] // 2
            taps = list(patches.around.double().unbind(2))
            taps.insert(middle, patches.centre.double())
            values = torch.stack(taps, 2)
            count, total, squares = sums.setdefault(name, [0, 0.0, 0.0])
            sums[name] = [
                count + len(values),
                total + values.sum(0),
                squares + torch.einsum('smi,smj->mij', values, values),
            ]

        return hook

    modules = dict(dense.named_modules())
    handles = [
        modules[name].register_forward_hook(watch(name, layer))
        for name, layer in pairs.items()
    ]
    try:
        with torch.no_grad():
            for number in range(len(batches)):
                forward(dense, batches[number])
    finally:
        for handle in handles:
            handle.remove()
    covariances = {}
    for name, (count, total, squares) in sums.items():
        if count:
            mean = total / count
            outer = mean[:, :, None] * mean[:, None, :]
            covariances[name] = squares / count - outer
    return covariances


def rearrange(
    dense: nn.Module, het: nn.Module, batches: Sequence, forward: Forward
) -> dict[str, tuple[float, float]]:
    """Permute a dense network's channels for the blocks of `het`, in place.

    The dense network computes the same function afterwards. Its layers lose
    less when they become those of `het`. Layers of `het` in the 'permuted'
    arrangement get the orders that cannot be folded into neighbours.

    Args:
        batches: some images; the first batch also tells where channels may
            be permuted, see :func:`find_axes`.

    Returns:
        dict: by layer, the share of the energy (see permute.py) that stays
        before and after. 'blocked' layers between axes that cannot be
        permuted, and 'shifted' ones, are not among them.
    """
    dense.eval()
    pairs = {
        name: layer
        for name, layer in find_pairs(dense, het).items()
        if layer.arrangement != 'shifted'
    }
    axes = find_axes(dense, batches[0], forward)
    modules = dict(dense.named_modules())
    covariances = _tap_covariances(dense, pairs, batches, forward)
    parts: dict[int, set[int]] = {i: set() for i in range(len(axes))}
    for i, axis in enumerate(axes):
        for name in (axis.writers | axis.readers) & covariances.keys():
            parts[i].add(pairs[name].p)
    free = {
        i: axis.size
        for i, axis in enumerate(axes)
        if not axis.open and len(parts[i]) == 1
    }
    writes = {name: i for i in free for name in axes[i].writers}
    reads = {name: i for i in free for name in axes[i].readers}
    numbers = itertools.count(len(axes))  # for axes of one layer alone
    losses, stored = {}, {}
    for name, covariance in covariances.items():
        layer = pairs[name]
        own = layer.arrangement == 'permuted'
        if not (own or name in reads or name in writes):
            continue
        channels = reads[name] if name in reads else next(numbers)
        filters = writes[name] if name in writes else next(numbers)
        if own:
            stored[name] = channels, filters
            free.setdefault(channels, layer.in_channels)
            free.setdefault(filters, layer.out_channels)
        losses[name] = Loss(
            lost_energy(modules[name].weight, covariance),
            channels,
            filters,
            layer.p,
        )
    blocks = choose_blocks(list(losses.values()), free)
    orders = {i: blocks[i].argsort(stable=True) for i in free}
    folded = {i: order for i, order in orders.items() if i < len(axes)}
    truth = _fingerprint(dense, batches[0], forward)
    with torch.no_grad():
        for i, order in folded.items():
            axes[i].permute(modules, order)
        if not _alike(truth, _fingerprint(dense, batches[0], forward)):
            for i, order in folded.items():
                axes[i].permute(modules, order.argsort())
            raise RuntimeError(
                'the permuted network computes another function; convert '
                'it without a permutation'
            )
        for name, (channels, filters) in stored.items():
            if channels not in folded:
                pairs[name].input_order.copy_(orders[channels])
            if filters not in folded:
                pairs[name].output_order.copy_(orders[filters].argsort())
    return {name: _shares(loss, blocks) for name, loss in losses.items()}


def _shares(loss: Loss, blocks: dict[int, Tensor]) -> tuple[float, float]:
    """The share of the energy that stays as it was, and with new blocks."""
    filters, channels = loss.energy.shape
    total = max(loss.energy.sum().item(), 1e-30)
    plain = {
        loss.filters: in_order(filters, loss.p),
        loss.channels: in_order(channels, loss.p),
    }
    return loss.kept(plain) / total, loss.kept(blocks) / total
