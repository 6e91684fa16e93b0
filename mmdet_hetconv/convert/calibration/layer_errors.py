"""What each layer would lose at each p, before any is converted.

The dense layer is linear in what its taps see, so the second moments of that
say how well weights with fewer taps can do: for each block the least squares of
least_squares.py, from one matrix for all p.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...layers import HetConv2d
from ...trace import hooked
from ..pairing import COMPARED, find_modules
from .dense_trace import Forward
from .patches import sample_positions, split_taps, take_patches

# Output positions for each weight of a dense filter; no more than that is seen.
POSITIONS_PER_UNKNOWN = 4
# Relative to the mean of the matrix's diagonal.
RIDGE = 1e-4


class _Moments:
    """Sums and products of what a dense layer's taps see, centre first."""

    def __init__(self, conv: nn.Conv2d):
        taps = conv.in_channels * math.prod(conv.kernel_size)
        # Says where the taps are; one block is the dense layer.
        shape: dict[str, Any] = {key: getattr(conv, key) for key in COMPARED}
        self.layer = HetConv2d(**shape, p=1, device='meta')
        self.wanted = POSITIONS_PER_UNKNOWN * taps
        self.count = 0
        # Of the first values; products of deviations from it lose no digits.
        self.near_mean: Tensor | None = None
        self.sum = torch.zeros(taps, dtype=torch.double)
        self.gram = torch.zeros(taps, taps, dtype=torch.double)

    def add(self, x: Tensor, y: Tensor, quota: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        total = len(y) * y.shape[-2] * y.shape[-1]
        patches = take_patches(self.layer, x, sample_positions(total, quota, generator))
        seen = torch.cat([patches.centre, patches.around.flatten(1)], dim=1)
        if not torch.isfinite(seen).all():
            raise ValueError('its inputs on the calibration images are not finite')
        if self.near_mean is None:
            self.near_mean = seen.mean(0, dtype=torch.double)
        seen = (seen - self.near_mean).float()
        self.count += len(seen)
        self.sum += seen.sum(0, dtype=torch.double).cpu()
        # Products of some thousand float32 values are as good as the errors need.
        self.gram += (seen.t() @ seen).double().cpu()

    def covariance(self) -> Tensor:
        mean = self.sum / self.count
        return self.gram / self.count - torch.outer(mean, mean)


def _error(conv: nn.Conv2d, covariance: Tensor, p: int) -> float:
    """The relative squared error of the best weights at p.

    Shape:
        covariance (T M, T M), of T taps of M channels.
    """
    centre, around = split_taps(conv.weight.detach().double().cpu())
    weight = torch.cat([centre, around.flatten(1)], dim=1)
    channels = conv.in_channels
    found = torch.zeros_like(weight)
    per_block = around.shape[2] * channels // p
    rows = len(weight) // p
    for b in range(p):
        first = channels + b * per_block
        used = torch.cat([torch.arange(channels), torch.arange(first, first + per_block)])
        gram = covariance[used][:, used]
        gram.diagonal().add_(RIDGE * gram.diagonal().mean().clamp_min(1e-12))
        block = slice(b * rows, (b + 1) * rows)
        cross = covariance[used] @ weight[block].t()
        found[block, used] = torch.cholesky_solve(cross, torch.linalg.cholesky(gram)).t()
    lost = weight - found
    power = ((weight @ covariance) * weight).sum()
    return (((lost @ covariance) * lost).sum() / power.clamp_min(1e-300)).item()


@torch.no_grad()
def layer_errors(
    dense: nn.Module,
    batches: Sequence[Any],
    forward: Forward,
    choices: Mapping[str, Sequence[int]],
    after_layer: Callable[[], None] = lambda: None,
) -> dict[str, dict[int, float]]:
    """The relative squared error of each layer at each p.

    Args:
        dense: the trained network, in eval mode.
        batches, forward: as :func:`calibrate`.
        choices: what p may be, by the name of a nn.Conv2d; 1 is dense and loses
            nothing.
        after_layer: is called for each layer that was measured.

    Raises:
        ValueError: features that are not finite; a layer that no image reaches.
    """
    convs = {n: c for n, c in find_modules(dense, nn.Conv2d).items() if n in choices}
    moments = _observe(convs, dense, batches, forward)
    errors = {}
    for name, conv in convs.items():
        covariance = moments.pop(name).covariance()
        errors[name] = {p: _error(conv, covariance, p) if p > 1 else 0.0 for p in choices[name]}
        after_layer()
    return errors


def _observe(
    convs: Mapping[str, nn.Conv2d], dense: nn.Module, batches: Sequence[Any], forward: Forward
) -> dict[str, _Moments]:
    moments = {name: _Moments(conv) for name, conv in convs.items()}
    number = 0

    def look(name: str, x: Tensor, y: Tensor) -> None:
        seen = moments[name]
        quota = math.ceil((seen.wanted - seen.count) / (len(batches) - number))
        try:
            if quota > 0 and y.numel():
                seen.add(x, y, quota, number)
        except ValueError as error:
            raise ValueError(f'{name}: {error}') from error

    with hooked(convs, after=look):
        for number in range(len(batches)):
            forward(dense, batches[number])
    for name, seen in moments.items():
        if not seen.count:
            raise ValueError(f'{name}: no calibration image reaches it')
    return moments
