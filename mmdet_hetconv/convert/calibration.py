"""Dense to heterogeneous weights by layer-wise least squares on images.

Layer after layer, in the order of execution, the converted network's layer
gets the weights whose outputs come closest to the dense layer's outputs. Its
inputs come from the converted network, so it also makes up for what the
layers before it lost. Batch-norm statistics follow.

He et al., "Channel Pruning for Accelerating Very Deep Neural Networks", ICCV
2017, solve the neighbouring problem, channel pruning, in this way.
"""

import logging
import sys
from collections.abc import Sequence
from functools import partial
from itertools import groupby

import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from mmengine.utils import ProgressBar
from torch import Tensor, nn

from ..layers import HetConv2d
from .least_squares import Fit, NormalEquations, fit_layer
from .moments import Moments
from .pairing import find_pairs, load_projected
from .patches import Patches, take_patches
from .rescaling import rescale
from .side_by_side import run_one_by_one, run_side_by_side
from .trace import ConvTrace, Forward, NormTrace, trace_dense

# Output positions that a layer is fitted to: this many, and so many for each
# weight of a filter.
LEAST_POSITIONS = 20_000
POSITIONS_PER_UNKNOWN = 16
# One batch in so many judges the ridge. From a single batch, one position.
HOLD_OUT = 5
# What unfinished forward passes may hold unless told otherwise, in bytes.
MEMORY = 4 * 2**30


def wanted_positions(layer: HetConv2d) -> int:
    """How many output positions the layer is fitted to, where there are."""
    unknowns = NormalEquations.count_unknowns(layer)
    return max(LEAST_POSITIONS, POSITIONS_PER_UNKNOWN * unknowns)


def call(model: nn.Module, batch: Tensor) -> object:
    """The forward pass of a network whose batches are tensors."""
    return model(batch)


class _LayerFit:
    """One layer's equations while its inputs come in."""

    def __init__(self, name: str, conv: nn.Conv2d, layer: HetConv2d):
        self.name = name
        self.conv = conv
        self.layer = layer
        self.fitted = NormalEquations(layer)
        self.held_out = NormalEquations(layer)

    def _answer(self, patches: Patches) -> Tensor:
        """The dense layer's outputs on the converted network's inputs."""
        weight = self.conv.weight.flatten(2)
        if self.layer.input_order is not None:
            weight = weight[:, self.layer.input_order]
        middle = weight.shape[2] // 2
        around = torch.cat(
            [weight[..., :middle], weight[..., middle + 1 :]], 2
        )
        y = F.linear(patches.around.flatten(1), around.flatten(1))
        return y + F.linear(
            patches.centre, weight[..., middle], self.conv.bias
        )

    def add(
        self,
        x: Tensor,
        positions: Tensor,
        target: Tensor | None,
        judges: bool | None,
    ) -> None:
        """Add the inputs of one call.

        Args:
            target: outputs (S, N) of the dense network; None for those of
                the dense layer on the same inputs.
            judges: whether these positions are held out; None for a part.
        """
        patches = take_patches(self.layer, x, positions)
        if target is None:
            target = self._answer(patches)
        if not (
            torch.isfinite(patches.centre).all()
            and torch.isfinite(target).all()
        ):
            raise ValueError(
                f'{self.name}: its inputs or the dense outputs on the '
                'calibration images are not finite'
            )
        if self.layer.output_order is not None:
            target = target[:, self.layer.output_order.argsort()]
        if judges is not None:
            equations = self.held_out if judges else self.fitted
            equations.add(patches, target)
            return
        held = torch.arange(len(target)) % HOLD_OUT == 1
        for equations, rows in ((self.held_out, held), (self.fitted, ~held)):
            part = Patches(patches.centre[rows], patches.around[rows])
            equations.add(part, target[rows])

    def finish(self, shifts: bool) -> Fit | None:
        """Give the layer its weights; None if it was never fed."""
        if not (self.fitted.count and self.held_out.count):
            return None
        fit = fit_layer(self.layer, self.fitted, self.held_out, shifts)
        if fit.positions < fit.unknowns:
            print_log(
                f'{self.name}: only {fit.positions} positions for '
                f'{fit.unknowns} weights per filter, so ridge {fit.ridge:g} '
                'ties them to the projected ones; more images would help',
                'current',
                level=logging.WARNING,
            )
        return fit


class _NormFit:
    """One batch norm's inputs in the converted network."""

    def __init__(self, norm: nn.Module, dense: nn.Module, trace: NormTrace):
        self.norm = norm
        self.dense = dense
        self.theirs = trace.moments
        self.mine = Moments()

    def finish(self) -> None:
        """Move the running statistics by what the conversion changed.

        The dense network's statistics come from far more images than those
        at hand. So they are not replaced: their mean gets the difference and
        their variance the ratio that the conversion makes on these images.
        """
        mine, theirs = self.mine, self.theirs
        if not (mine.count and theirs.count):
            return
        # A channel that is constant here says nothing about its variance.
        varies = (theirs.var > 0) & (mine.var > 0)
        ratio = torch.where(varies, mine.var / theirs.var, 1.0)
        mean = self.dense.running_mean + (mine.mean - theirs.mean)
        self.norm.running_mean.copy_(mean)
        self.norm.running_var.copy_(self.dense.running_var * ratio)


class _Calibration:
    """The traces of the dense network and what becomes of the other one."""

    def __init__(self, dense, het, pairs, traces, batches: int):
        self.dense = dict(dense.named_modules())
        self.het = dict(het.named_modules())
        self.pairs = pairs
        self.traces = traces
        self.batches = batches
        self.running: _LayerFit | _NormFit | None = None
        self.fits: dict[str, Fit] = {}

    def stops(self) -> list[str]:
        """What gets new values, in order; norms before all layers do not."""
        names = [
            name
            for name, trace in self.traces.items()
            if isinstance(trace, ConvTrace) or trace.calls == 1
        ]
        first = next((i for i, n in enumerate(names) if n in self.pairs), 0)
        return names[first:]

    def start(self, name: str) -> None:
        if name in self.pairs:
            layer = self.pairs[name]
            self.running = _LayerFit(name, self.dense[name], layer)
        else:
            self.running = _NormFit(
                self.het[name], self.dense[name], self.traces[name]
            )

    def add(self, name: str, batch: int, call: int, x: Tensor) -> None:
        """Take in a module's input, whose values may come with any call."""
        if isinstance(self.running, _NormFit):
            self.running.mine.add(x)
        elif (batch, call) in self.traces[name].targets:
            positions, target = self.traces[name].targets[batch, call]
            judges = batch % HOLD_OUT == 1 if self.batches > 1 else None
            self.running.add(x, positions, target, judges)

    def finish(self, name: str) -> None:
        if isinstance(self.running, _NormFit):
            self.running.finish()
            return
        has_bias = self.pairs[name].grouped.bias is not None
        fit = self.running.finish(has_bias or bool(self._norms_behind(name)))
        self.traces[name].targets.clear()
        if fit is not None:
            self.fits[name] = fit

    def rescale(self) -> None:
        """Undo what the fit did to the length of filters, where it can be."""
        for name in self.fits:
            norms = [self.het[norm] for norm in self._norms_behind(name)]
            if norms:
                rescale(self.dense[name], self.pairs[name], norms)

    def _norms_behind(self, name: str) -> list[str]:
        """Batch norms that take all outputs of a layer, and nothing else."""
        norms = list(self.traces[name].norms)
        alone = all(
            norm is not None and self.traces[norm].calls == 1 for norm in norms
        )
        return norms if alone else []


def calibrate(
    dense: nn.Module,
    het: nn.Module,
    batches: Sequence,
    forward: Forward = call,
    memory: float = MEMORY,
    show_progress: bool = False,
) -> dict[str, Fit]:
    """Convert a dense network's weights into `het`, in place.

    Layers in front of a batch norm get the length of the dense weights, see
    rescaling.py. Both networks are left in eval mode; the dense one does not
    change.

    Args:
        dense: the trained network.
        het: the same architecture, some nn.Conv2d being HetConv2d.
        batches: of images without labels, read several times by number.
        forward: runs a network on a batch; defaults to ``model(batch)``.
        memory: bytes that unfinished forward passes may hold. If those of all
            batches fit, each batch runs once in all. Otherwise every layer
            runs the batches anew up to itself, which takes longer.
        show_progress: a bar on stderr.

    Returns:
        dict: by layer name in order of execution, how well it was fitted.
        HetConv layers that the network never calls keep projected weights.

    Raises:
        ValueError: no batches; networks that do not match; weights or
            features that are not finite.
    """
    pairs = find_pairs(dense, het)
    load_projected(dense, het)
    return _run(dense, het, pairs, batches, forward, memory, show_progress)


def move_norms(
    dense: nn.Module,
    het: nn.Module,
    batches: Sequence,
    forward: Forward = call,
    memory: float = MEMORY,
    show_progress: bool = False,
) -> None:
    """Fit batch-norm statistics only, for whatever weights `het` has.

    The arguments are those of :func:`calibrate`. They are moved from the
    dense network's by what the conversion changes on the images at hand.
    """
    _run(dense, het, {}, batches, forward, memory, show_progress)


def _run(
    dense: nn.Module,
    het: nn.Module,
    pairs: dict[str, HetConv2d],
    batches: Sequence,
    forward: Forward,
    memory: float,
    show_progress: bool,
) -> dict[str, Fit]:
    """Fit the layers in `pairs` and all batch norms, in order."""
    if len(batches) == 0:
        raise ValueError('calibration needs at least one batch of images')
    dense.eval()
    het.eval()
    if show_progress:
        step = ProgressBar(len(batches) + len(pairs), file=sys.stderr).update
    else:
        step = int  # does nothing
    trace = trace_dense(dense, pairs, batches, forward, wanted_positions, step)
    traces = trace.modules
    held = trace.held * len(batches)
    if held > memory:
        print_log(
            f'{len(batches)} unfinished forward passes would hold '
            f'{held / 2**30:.1f} GiB, more than {memory / 2**30:.1f}: every '
            'layer runs the images anew. Fewer or smaller images are faster',
            'current',
            level=logging.WARNING,
        )
    state = _Calibration(dense, het, pairs, traces, len(batches))

    def run(number: int) -> None:
        forward(het, batches[number])

    def visit(name: str, inputs: dict[int, Tensor]) -> None:
        state.start(name)
        for batch, x in inputs.items():
            state.add(name, batch, 0, x)
        finish(name)

    def finish(name: str) -> None:
        state.finish(name)
        if name in pairs:
            step()

    works = [partial(run, number) for number in range(len(batches))]
    # Where the passes wait for each other, a module that is called several
    # times is seen by its first call only.
    groups = groupby(
        state.stops(), lambda n: held <= memory and traces[n].calls == 1
    )
    with torch.no_grad():
        for together, names in groups:
            if together:
                modules = {name: state.het[name] for name in names}
                run_side_by_side(works, modules, visit)
                continue
            for name in names:
                state.start(name)
                run_one_by_one(
                    works,
                    state.het[name],
                    traces[name].calls,
                    partial(state.add, name),
                )
                finish(name)
    state.rescale()
    return state.fits
