"""Permutations of channels folded into the weights of a dense network.

Between a convolution and those that read its output, through batch norms,
activations, pooling and sums only, the channels may stand in any order: filters,
norm parameters and the readers' channels permuted alike compute the same
function. Which channels share a block of a HetConv layer can so be chosen at
no cost at run time. A HetConv layer of the 'permuted' arrangement keeps the
order itself where it cannot be folded, and permutes while it runs.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ...layers import HetConv2d
from ...trace import hooked
from ..calibration.dense_trace import Forward
from ..calibration.moments import Moments
from ..calibration.patches import sample_positions, take_patches
from ..pairing import find_modules, find_pairs
from .axes import Axes
from .search import Loss, choose_blocks, in_order, lost_energy

# Output positions per layer that covariances are taken from.
POSITIONS = 10_000


@dataclass
class _Seen:
    """Sums over a layer's inputs at the taps, and its outputs.

    Attributes:
        positions: their number.
        values: of the channels at the taps, (M, T).
        products: of the values at two taps, (M, T, T).
        outputs: mean and variance of the filters' outputs.
    """

    positions: int = 0
    values: Any = 0.0
    products: Any = 0.0
    outputs: Moments = field(default_factory=Moments)

    def covariance(self) -> Tensor:
        """(M, T, T), the taps row by row, relative to the output's variance."""
        mean = self.values / self.positions
        outer = mean[:, :, None] * mean[:, None, :]
        variance = self.outputs.var.sum().clamp_min(1e-12)
        return (self.products / self.positions - outer) / variance


def _tap_covariances(
    dense: nn.Module, pairs: dict[str, HetConv2d], batches: Sequence[Any], forward: Forward
) -> dict[str, Tensor]:
    """Covariance of every input channel's values at the taps, by layer.

    Relative, since layers that share an order are to lose little each: by the
    energy itself those of large values would decide.
    """
    seen: dict[str, _Seen] = {}
    quota = math.ceil(POSITIONS / len(batches))
    generator = torch.Generator().manual_seed(0)

    def look(name: str, x: Tensor, y: Tensor) -> None:
        places = len(y) * y.shape[-2] * y.shape[-1]
        positions = sample_positions(places, quota, generator)
        patches = take_patches(pairs[name], x, positions)
        middle = patches.around.shape[2] // 2
        taps = list(patches.around.double().unbind(2))
        taps.insert(middle, patches.centre.double())
        values = torch.stack(taps, 2)
        sums = seen.setdefault(name, _Seen())
        sums.positions += len(values)
        sums.values += values.sum(0)
        sums.products += torch.einsum('smi,smj->mij', values, values)
        sums.outputs.add(y)

    modules = {name: dense.get_submodule(name) for name in pairs}
    with torch.no_grad(), hooked(modules, after=look):
        for number in range(len(batches)):
            forward(dense, batches[number])
    return {name: sums.covariance() for name, sums in seen.items() if sums.positions}


def rearrange(
    dense: nn.Module, het: nn.Module, batches: Sequence[Any], forward: Forward
) -> dict[str, tuple[float, float]]:
    """Permute a dense network's channels for the blocks of `het`, in place.

    The dense network computes the same function afterwards. Its layers lose
    less when they become those of `het`. Layers of `het` in the 'permuted'
    arrangement get the orders that cannot be folded into neighbours.

    Args:
        batches: some images; the first batch also tells where channels may
            be permuted, with noise like it, see axes.py.

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
    found = Axes(dense, batches[0], forward)
    axes = found.found
    convs = find_modules(dense, nn.Conv2d)
    covariances = _tap_covariances(dense, pairs, batches, forward)
    parts: dict[int, set[int]] = {i: set() for i in range(len(axes))}
    for i, axis in enumerate(axes):
        for name in (axis.writers | axis.readers) & covariances.keys():
            parts[i].add(pairs[name].p)
    free = {i: axis.size for i, axis in enumerate(axes) if not axis.open and len(parts[i]) == 1}
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
        energy = lost_energy(convs[name].weight, covariance).cpu()
        losses[name] = Loss(energy, channels, filters, layer.p)
    blocks = choose_blocks(list(losses.values()), free)
    orders = {i: blocks[i].argsort(stable=True) for i in free}
    folded = {i: order for i, order in orders.items() if i < len(axes)}
    if not found.permute({axes[i]: order for i, order in folded.items()}):
        raise RuntimeError(
            'the permuted network computes another function; convert it without a permutation'
        )
    with torch.no_grad():
        for name, (channels, filters) in stored.items():
            layer = pairs[name]
            assert layer.input_order is not None
            assert layer.output_order is not None
            if channels not in folded:
                layer.input_order.copy_(orders[channels])
            if filters not in folded:
                layer.output_order.copy_(orders[filters].argsort())
    return {name: _shares(loss, blocks) for name, loss in losses.items()}


def _shares(loss: Loss, blocks: dict[int, Tensor]) -> tuple[float, float]:
    """The share of the energy that stays as it was, and with new blocks."""
    filters, channels = loss.energy.shape
    total = max(loss.energy.sum().item(), 1e-30)
    plain = {loss.filters: in_order(filters, loss.p), loss.channels: in_order(channels, loss.p)}
    return loss.kept(plain) / total, loss.kept(blocks) / total
