"""Heterogeneous weights by least squares, from float64 normal equations.

Filter block b of a HetConv layer computes, at every output position,

    y_b = c C_b + o_b O_b + bias_b

with c the M input values at the centre tap and o_b the (T - 1) M/p values at
the other T - 1 taps on the channels of block b. C_b and O_b are M + (T - 1)
M/p unknowns for each of its N/p filters.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ...layers import HetConv2d, expand_foreign, take_foreign, take_own, taps_per_filter
from .patches import Patches, split_taps

# Ridge candidates, relative to the mean of the Gram matrix's diagonal. The
# last one keeps the weights as they are.
RIDGES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, math.inf)
# The least one where there are fewer positions than unknowns.
LEAST_RIDGE_OF_FEW = 1e-2


class NormalEquations:
    """Sums of products over positions, block by block, in float64.

    Their size does not depend on the number of positions: M^2 + T M^2 +
    (T M)^2 / p + O(M N) numbers. The Gram matrix of the centre values is the
    same for every block and held once.
    """

    def __init__(self, layer: HetConv2d):
        self.p = layer.p
        channels, filters = layer.in_channels, layer.out_channels
        around = self.count_unknowns(layer) - channels

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.double, device=layer.grouped.weight.device)

        self.count = 0
        self.unknowns = channels + around
        self._centre_sum = zeros(channels)
        self._around_sum = zeros(self.p, around)
        self._target_sum = zeros(self.p, filters // self.p)
        self._centre_gram = zeros(channels, channels)
        self._mixed_gram = zeros(self.p, channels, around)
        self._around_gram = zeros(self.p, around, around)
        self._centre_cross = zeros(self.p, channels, filters // self.p)
        self._around_cross = zeros(self.p, around, filters // self.p)
        self._energy = zeros(self.p, filters // self.p)

    @staticmethod
    def count_unknowns(layer: HetConv2d) -> int:
        """Weights of one filter, M + (T - 1) M/p."""
        return taps_per_filter(layer.in_channels, layer.kernel_size, layer.p)

    def add(self, patches: Patches, target: Tensor) -> None:
        """Add the positions of one batch.

        Shape:
            target: (S, N), filters in the order of the blocks.
        """
        self.count += len(target)
        centre = patches.centre.double()
        target = target.double().unflatten(1, (self.p, -1))
        self._centre_sum += centre.sum(0)
        self._target_sum += target.sum(0)
        self._energy += target.square().sum(0)
        self._centre_gram += centre.t() @ centre
        for b, around in enumerate(patches.blocks(self.p)):
            around = around.double()
            self._around_sum[b] += around.sum(0)
            self._mixed_gram[b] += centre.t() @ around
            self._around_gram[b] += around.t() @ around
            self._centre_cross[b] += centre.t() @ target[:, b]
            self._around_cross[b] += around.t() @ target[:, b]

    def merge(self, other: 'NormalEquations') -> None:
        """Add the positions of another one of the same layer."""
        self.count += other.count
        for name, value in vars(other).items():
            if isinstance(value, Tensor):
                getattr(self, name).add_(value)

    def block(self, b: int, centred: bool) -> 'BlockEquations':
        """The equations of one block.

        Args:
            centred: of the deviations from the means, that is with a bias.
        """
        mixed = self._mixed_gram[b]
        gram = torch.cat(
            [
                torch.cat([self._centre_gram, mixed], dim=1),
                torch.cat([mixed.t(), self._around_gram[b]], dim=1),
            ]
        )
        cross = torch.cat([self._centre_cross[b], self._around_cross[b]])
        energy = self._energy[b]
        count = max(self.count, 1)
        inputs = torch.cat([self._centre_sum, self._around_sum[b]]) / count
        targets = self._target_sum[b] / count
        if centred:
            gram = gram - count * torch.outer(inputs, inputs)
            cross = cross - count * torch.outer(inputs, targets)
            energy = energy - count * targets.square()
        return BlockEquations(gram, cross, energy, inputs, targets)


@dataclass(frozen=True)
class BlockEquations:
    """Normal equations of one filter block with u unknowns, n filters.

    Shape:
        gram: (u, u); cross: (u, n); energy: (n,), the targets' squares;
        inputs: (u,), targets: (n,), the means.
    """

    gram: Tensor
    cross: Tensor
    energy: Tensor
    inputs: Tensor
    targets: Tensor

    def error(self, weights: Tensor) -> float:
        """Sum of squared errors of weights (u, n)."""
        fit = (weights * (self.gram @ weights - 2 * self.cross)).sum()
        return max(0.0, (self.energy.sum() + fit).item())

    def solve(self, start: Tensor, ridge: float) -> Tensor | None:
        """The weights (u, n) that minimise error + ridge * |w - start|^2.

        The ridge is relative to the mean of the Gram matrix's diagonal. Where
        the inputs do not vary that mean is 0 and nothing can be learnt:
        `start` is the answer then.

        Returns:
            None if the matrix is not positive definite in float64.
        """
        diagonal = ridge * self.gram.diagonal().mean()
        if ridge == math.inf or diagonal == 0:
            return start
        matrix = self.gram.clone()
        matrix.diagonal().add_(diagonal)
        factor, failed = torch.linalg.cholesky_ex(matrix)
        if failed:
            return None
        residual = self.cross - self.gram @ start
        return start + torch.cholesky_solve(residual, factor)


@dataclass(frozen=True)
class Fit:
    """How well a layer was fitted.

    Attributes:
        ridge: the one chosen, relative; inf if the old weights were kept.
        before: relative error of the weights that the fit started from.
        after: relative error of the fitted ones. Both are root mean square
            errors on the held-out positions, over the targets' deviation.
        positions, unknowns: equations per filter, and weights per filter.
    """

    ridge: float
    before: float
    after: float
    positions: int
    unknowns: int


@torch.no_grad()
def read_weights(layer: HetConv2d) -> Tensor:
    """The layer's weights as unknowns, (p, M + (T - 1) M/p, N/p), double."""
    p, filters = layer.p, layer.out_channels
    own, around = split_taps(layer.grouped.weight.double())
    centre = own.new_zeros(filters, layer.in_channels)
    if layer.pointwise is not None:
        foreign = layer.pointwise.weight.double()
        centre = expand_foreign(foreign, p).flatten(1)
    for b, rows in enumerate(centre.view(p, filters // p, p, -1)):
        rows[:, b] = own.view(p, filters // p, -1)[b]
    weights = torch.cat([centre.view(p, filters // p, -1), around.view(p, filters // p, -1)], 2)
    return weights.transpose(1, 2)


@torch.no_grad()
def write_weights(layer: HetConv2d, weights: Tensor) -> None:
    """The inverse of :func:`read_weights`, in place."""
    p, filters, channels = layer.p, layer.out_channels, layer.in_channels
    kh, kw = layer.kernel_size
    weights = weights.transpose(1, 2).reshape(filters, -1)
    centre = weights[:, :channels, None, None]
    around = weights[:, channels:].view(filters, channels // p, kh * kw - 1)
    middle = kh * kw // 2
    own = take_own(centre, p).flatten(2)
    grouped = torch.cat([around[..., :middle], own, around[..., middle:]], 2)
    layer.grouped.weight.copy_(grouped.view(filters, channels // p, kh, kw))
    if layer.pointwise is not None:
        layer.pointwise.weight.copy_(take_foreign(centre, p))


def _relative(error: float, energy: float) -> float:
    """Root of the ratio; 0 where there is neither error nor energy."""
    if energy > 0:
        return math.sqrt(error / energy)
    return 0.0 if error == 0 else math.inf


@torch.no_grad()
def fit_layer(
    layer: HetConv2d, fitted: NormalEquations, held_out: NormalEquations, shifts: bool
) -> Fit:
    """Give a layer the least-squares weights (and bias), in place.

    The ridge pulls towards the weights that the layer has. The one with the
    least error on `held_out` is taken for all blocks; with it the final
    weights are fitted to all positions. `fitted` then holds them all.

    Args:
        shifts: whether the output may be shifted by a constant per filter,
            by the layer's bias or by a batch norm behind it.
    """
    start = read_weights(layer)
    blocks = range(layer.p)
    least = LEAST_RIDGE_OF_FEW if fitted.count < fitted.unknowns else 0
    errors = {ridge: 0.0 for ridge in RIDGES if ridge >= least}
    energy = 0.0
    for b in blocks:
        block = fitted.block(b, shifts)
        judge = held_out.block(b, shifts)
        energy += judge.energy.sum().item()
        for ridge in errors:
            weights = block.solve(start[b], ridge)
            error = math.inf if weights is None else judge.error(weights)
            errors[ridge] += error
    # The larger ridge where two are equally good.
    ridge = min(reversed(errors), key=lambda ridge: errors[ridge])

    positions = fitted.count
    fitted.merge(held_out)
    solved, bias = [], []
    for b in blocks:
        block = fitted.block(b, shifts)
        weights = block.solve(start[b], ridge)
        solved.append(start[b] if weights is None else weights)
        bias.append(block.targets - block.inputs @ solved[-1])
    write_weights(layer, torch.stack(solved))
    if layer.grouped.bias is not None:
        layer.grouped.bias.copy_(torch.cat(bias))
    return Fit(
        ridge=ridge,
        before=_relative(errors[math.inf], energy),
        after=_relative(errors[ridge], energy),
        positions=positions,
        unknowns=fitted.unknowns,
    )
