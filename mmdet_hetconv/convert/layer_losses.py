"""What each layer would lose at each p, before any is converted.

The dense layer is linear in what its taps see, so the second moments of that
say how well weights with fewer taps can do: for each block the least squares of
least_squares.py, from one matrix for all p. How much an error of a layer matters
is measured: the layer alone takes such weights, and the features of the network
behind it are compared.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..layers import HetConv2d
from .pairing import COMPARED, find_modules, find_pairs
from .patches import sample_positions, split_taps, take_patches
from .taps import find_taps, last_call, relative_errors, tapped
from .trace import Forward

# Output positions for each weight of a dense filter; no more than that is seen.
POSITIONS_PER_UNKNOWN = 4
# Relative to the mean of the matrix's diagonal.
RIDGE = 1e-4
# Batches on which the effect of single layers is measured.
EFFECT_BATCHES = 4
# Near this p the effect is measured.
MIDDLE_P = 4


class _Moments:
    """Sums and products of what a dense layer's taps see, centre first."""

    def __init__(self, conv: nn.Conv2d):
        taps = conv.in_channels * math.prod(conv.kernel_size)
        # Says where the taps are; one block is the dense layer.
        shape: dict[str, Any] = {key: getattr(conv, key) for key in COMPARED}
        self.layer = HetConv2d(**shape, p=1, device='meta')
        self.wanted = POSITIONS_PER_UNKNOWN * taps
        self.count = 0
        self.sum = torch.zeros(taps, dtype=torch.double)
        self.gram = torch.zeros(taps, taps, dtype=torch.double)

    def add(self, x: Tensor, y: Tensor, quota: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        total = len(y) * y.shape[-2] * y.shape[-1]
        patches = take_patches(self.layer, x, sample_positions(total, quota, generator))
        seen = torch.cat([patches.centre, patches.around.flatten(1)], dim=1)
        if not torch.isfinite(seen).all():
            raise ValueError('its inputs on the calibration images are not finite')
        self.count += len(seen)
        self.sum += seen.sum(0, dtype=torch.double).cpu()
        # float32 products: of some thousand positions, which errors do not need better.
        self.gram += (seen.t() @ seen).double().cpu()

    def covariance(self) -> Tensor:
        mean = self.sum / self.count
        return self.gram / self.count - torch.outer(mean, mean)


def _fit(conv: nn.Conv2d, covariance: Tensor, p: int) -> tuple[float, Tensor]:
    """The relative squared error of the best weights at p, and these.

    Shape:
        covariance (T M, T M); returns the weights as (N, T M), zeros included.
    """
    centre, around = split_taps(conv.weight.detach().double().cpu())
    weight = torch.cat([centre, around.flatten(1)], dim=1)
    channels = conv.in_channels
    found = torch.zeros_like(weight)
    per_block = around.shape[2] * channels // p
    rows = len(weight) // p
    everywhere = torch.arange(channels)
    for b in range(p):
        own = channels + b * per_block + torch.arange(per_block)
        used = torch.cat([everywhere, own])
        gram = covariance[used][:, used]
        gram.diagonal().add_(RIDGE * gram.diagonal().mean().clamp_min(1e-12))
        block = slice(b * rows, (b + 1) * rows)
        cross = covariance[used] @ weight[block].t()
        factor = torch.linalg.cholesky(gram)
        found[block, used] = torch.cholesky_solve(cross, factor).t()
    lost = weight - found
    error = ((lost @ covariance) * lost).sum()
    power = ((weight @ covariance) * weight).sum()
    return (error / power.clamp_min(1e-300)).item(), found


def _as_kernel(conv: nn.Conv2d, found: Tensor) -> Tensor:
    """Weights of :func:`_fit` as (N, M, Kh, Kw)."""
    channels = conv.in_channels
    centre = found[:, :channels, None]
    around = found[:, channels:].view(len(found), channels, -1)
    middle = around.shape[2] // 2
    kernel = torch.cat([around[..., :middle], centre, around[..., middle:]], dim=2)
    return kernel.view(conv.weight.shape).to(conv.weight)


@torch.no_grad()
def layer_losses(
    dense: nn.Module,
    het: nn.Module,
    batches: Sequence[Any],
    forward: Forward,
    choices: dict[str, Sequence[int]],
    after_layer: Callable[[], None] = lambda: None,
) -> dict[str, dict[int, float]]:
    """The loss of each layer at each p, to be added up.

    It is the sum over the compared features (see taps.py) of their relative
    squared errors, as if errors of layers added up.

    Args:
        dense: the trained network, in eval mode.
        het: the same architecture; its HetConv layers are those that get a p.
        batches, forward: as :func:`calibrate`.
        choices: what p may be, by layer; 1 is dense and loses nothing.
        after_layer: is called for each layer that was measured.

    Raises:
        ValueError: the networks do not match; features that are not finite; a
            layer that no image reaches.
    """
    find_pairs(dense, het)
    convs = {n: c for n, c in find_modules(dense, nn.Conv2d).items() if n in choices}
    moments = _observe(dense, convs, batches, forward)
    names = find_taps(het)
    few = [batches[i] for i in range(min(EFFECT_BATCHES, len(batches)))]
    targets = []
    for batch in few:
        with tapped(dense, names) as features:
            forward(dense, batch)
        targets.append(features)
    last = last_call(targets[0], relative_errors(targets[0], targets[0]))

    def effect() -> float:
        total = 0.0
        for batch, theirs in zip(few, targets, strict=True):
            with tapped(dense, names, last) as mine:
                forward(dense, batch)
            total += float(torch.stack([*relative_errors(mine, theirs).values()]).sum())
        return total / len(few)

    losses: dict[str, dict[int, float]] = {}
    for name, conv in convs.items():
        covariance = moments.pop(name).covariance()
        fits = {p: _fit(conv, covariance, p) for p in choices[name] if p > 1}
        losses[name] = {1: 0.0} if 1 in choices[name] else {}
        if fits:
            middle = min(fits, key=lambda p: abs(math.log(p / MIDDLE_P)))
            error, found = fits[middle]
            with _other_weight(conv, _as_kernel(conv, found)):
                weight = effect() / max(error, 1e-12)
            losses[name] |= {p: weight * fit[0] for p, fit in fits.items()}
        after_layer()
    return losses


def _observe(
    dense: nn.Module, convs: dict[str, nn.Conv2d], batches: Sequence[Any], forward: Forward
) -> dict[str, _Moments]:
    moments = {name: _Moments(conv) for name, conv in convs.items()}
    number = 0

    def look_at(name: str) -> Callable[[nn.Conv2d, tuple[Any, ...], Tensor], None]:
        def look(conv: nn.Conv2d, args: tuple[Any, ...], y: Tensor) -> None:
            seen = moments[name]
            quota = math.ceil((seen.wanted - seen.count) / (len(batches) - number))
            try:
                if quota > 0 and y.numel():
                    seen.add(args[0], y, quota, number)
            except ValueError as error:
                raise ValueError(f'{name}: {error}') from error

        return look

    handles = [conv.register_forward_hook(look_at(name)) for name, conv in convs.items()]
    try:
        for number in range(len(batches)):
            forward(dense, batches[number])
    finally:
        for handle in handles:
            handle.remove()
    for name, seen in moments.items():
        if not seen.count:
            raise ValueError(f'{name}: no calibration image reaches it')
    return moments


@contextmanager
def _other_weight(conv: nn.Conv2d, weight: Tensor) -> Iterator[None]:
    kept = conv.weight.detach().clone()
    conv.weight.copy_(weight)
    try:
        yield
    finally:
        conv.weight.copy_(kept)
