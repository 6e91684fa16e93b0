"""Which channels and filters share a block: the assignment that loses least.

A HetConv layer keeps the taps around the centre where channel m and filter n
are in blocks of one number, and loses them elsewhere. What filter n loses with
channel m is what no point-wise weight can give back of it,

    E[n, m] = a^T (S_oo - s_oc s_oc^T / s_cc) a

with a the weights around the centre and S the covariance of the channel's
values at the taps (o: around, c: centre). The blocks that keep most of E are
sought by turns: with the blocks of all other axes given, those of one axis
are a linear assignment problem.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..calibration.patches import split_taps

STARTS = 4
MOST_ROUNDS = 30


@dataclass(frozen=True)
class Loss:
    """What a layer loses, and the axes its channels and filters lie on.

    Attributes:
        energy: (N, M), E above.
        channels, filters: numbers of axes. Layers in a chain share them.
        p: the layer's part.
    """

    energy: Tensor
    channels: int
    filters: int
    p: int

    def kept(self, blocks: dict[int, Tensor]) -> float:
        """The energy that stays with given blocks of all axes."""
        rows, columns = blocks[self.filters], blocks[self.channels]
        return self.energy[rows[:, None] == columns[None, :]].sum().item()

    def gain(self, axis: int, blocks: dict[int, Tensor]) -> Tensor | None:
        """What each entry of `axis` keeps in each block, (size, p)."""
        if axis == self.filters:
            other = blocks[self.channels]
            return self.energy @ _one_hot(other, self.p)
        if axis == self.channels:
            other = blocks[self.filters]
            return self.energy.t() @ _one_hot(other, self.p)
        return None


def _one_hot(blocks: Tensor, p: int) -> Tensor:
    return torch.nn.functional.one_hot(blocks, p).double()


def in_order(size: int, p: int) -> Tensor:
    """The blocks as they are without a permutation, (size,)."""
    return torch.arange(size) // (size // p)


def _assign(gain: Tensor) -> Tensor:
    """Blocks of equal size that maximise the sum of gain[i, block of i]."""
    # mmdet brings scipy; all but the permutation works without it.
    from scipy.optimize import linear_sum_assignment

    size, p = gain.shape
    rows, places = linear_sum_assignment(
        gain.repeat_interleave(size // p, dim=1).numpy(), maximize=True
    )
    return torch.from_numpy(places)[torch.from_numpy(rows).argsort()] // (size // p)


def _climb(losses: Sequence[Loss], blocks: dict[int, Tensor], free: dict[int, int]) -> float:
    """Improve the free axes by turns, in place; returns what is kept."""
    kept = sum(loss.kept(blocks) for loss in losses)
    for _ in range(MOST_ROUNDS):
        for axis in free:
            gains = [gain for loss in losses if (gain := loss.gain(axis, blocks)) is not None]
            blocks[axis] = _assign(torch.stack(gains).sum(0))
        now = sum(loss.kept(blocks) for loss in losses)
        if now <= kept * (1 + 1e-9):
            break
        kept = now
    return sum(loss.kept(blocks) for loss in losses)


def choose_blocks(losses: Sequence[Loss], free: dict[int, int]) -> dict[int, Tensor]:
    """Blocks of all axes that keep much of the energy.

    The search climbs from the present blocks and from random ones, and the
    best end is taken: it never keeps less than the present blocks do.

    Args:
        losses: of the layers; those that share an axis have one p.
        free: the axes that may change, with their sizes.

    Returns:
        dict: by axis, the block of every entry, (size,), int64.
    """
    generator = torch.Generator().manual_seed(0)
    present = {}
    for loss in losses:
        filters, channels = loss.energy.shape
        present[loss.filters] = in_order(filters, loss.p)
        present[loss.channels] = in_order(channels, loss.p)
    best, most = present, -1.0
    for start in range(STARTS):
        blocks = dict(present)
        if start:
            for axis, size in free.items():
                shuffled = torch.randperm(size, generator=generator)
                blocks[axis] = blocks[axis][shuffled]
        kept = _climb(losses, blocks, free)
        if kept > most:
            best, most = blocks, kept
    return best


def lost_energy(weight: Tensor, covariance: Tensor) -> Tensor:
    """E of the module's head.

    Shape:
        weight: (N, M, Kh, Kw); covariance: (M, T, T), of the values at the
        taps, row by row; returns (N, M), double.
    """
    _, weight = split_taps(weight.detach().double())
    taps = covariance.shape[2]
    middle = taps // 2
    around = [tap for tap in range(taps) if tap != middle]
    covariance = covariance.double()
    mixed = covariance[:, around, middle]
    variance = covariance[:, middle, middle].clamp_min(1e-30)
    rest = covariance[:, around][:, :, around] - (
        mixed[:, :, None] * mixed[:, None, :] / variance[:, None, None]
    )
    return torch.einsum('nma,mab,nmb->nm', weight, rest, weight)
