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
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from mmengine.utils import ProgressBar
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ...layers import HetConv2d
from ...trace import find_tensors
from ..pairing import find_modules, find_pairs, load_projected
from .dense_trace import ConvTrace, DenseTrace, Forward, find_stops, trace_dense
from .least_squares import Fit, NormalEquations, fit_layer
from .live_memory import held_by_a_pass
from .norms import NormFit
from .patches import Patches, split_taps, take_patches
from .rescaling import rescale
from .side_by_side import run_one_by_one, run_side_by_side

# Output positions that a layer is fitted to: this many, and so many for each
# weight of a filter.
LEAST_POSITIONS = 20_000
POSITIONS_PER_UNKNOWN = 16
# One batch in so many judges the ridge. From a single batch, one position.
HOLD_OUT = 5
# What unfinished forward passes may hold unless told otherwise, in bytes.
MEMORY = 4 * 2**30
# Batches that are looked at for blank images.
LOOKED_AT = 8


def wanted_positions(layer: HetConv2d) -> int:
    """How many output positions the layer is fitted to, where there are."""
    unknowns = NormalEquations.count_unknowns(layer)
    return max(LEAST_POSITIONS, POSITIONS_PER_UNKNOWN * unknowns)


def call(model: nn.Module, batch: Tensor) -> object:
    """The forward pass of a network whose batches are tensors."""
    return model(batch)


class _LayerFit:
    """One layer's equations while its inputs come in."""

    def __init__(
        self, name: str, conv: nn.Conv2d, layer: HetConv2d, trace: ConvTrace, batches: int
    ):
        self.name = name
        self.conv = conv
        self.layer = layer
        self.targets = trace.targets
        self.batches = batches
        self.fitted = NormalEquations(layer)
        self.held_out = NormalEquations(layer)

    def _answer(self, patches: Patches) -> Tensor:
        """The dense layer's outputs on the converted network's inputs."""
        weight = self.conv.weight
        if self.layer.input_order is not None:
            weight = weight[:, self.layer.input_order]
        centre, around = split_taps(weight)
        y = F.linear(patches.around.flatten(1), around.flatten(1))
        return y + F.linear(patches.centre, centre, self.conv.bias)

    def add(self, batch: int, call: int, x: Tensor) -> None:
        """Take in the layer's input, of calls that the dense one had too."""
        if (batch, call) not in self.targets:
            return
        positions, target = self.targets[batch, call]
        patches = take_patches(self.layer, x, positions)
        if target is None:
            target = self._answer(patches)
        if not (torch.isfinite(patches.centre).all() and torch.isfinite(target).all()):
            raise ValueError(
                f'{self.name}: its inputs or the dense outputs on the '
                'calibration images are not finite'
            )
        if self.layer.output_order is not None:
            target = target[:, self.layer.output_order.argsort()]
        if self.batches > 1:
            judges = batch % HOLD_OUT == 1
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


class _Calibration:
    """The traces of the dense network and what becomes of the other one."""

    def __init__(
        self,
        dense: nn.Module,
        het: nn.Module,
        pairs: dict[str, HetConv2d],
        trace: DenseTrace,
        batches: int,
    ):
        self.dense_convs = find_modules(dense, nn.Conv2d)
        self.dense_norms = find_modules(dense, _BatchNorm)
        self.het_norms = find_modules(het, _BatchNorm)
        self.pairs = pairs
        self.trace = trace
        self.batches = batches
        self.fits: dict[str, Fit] = {}

    def stops(self) -> list[str]:
        """What gets new values, in order; norms before all layers do not."""
        names = [
            name for name, calls in self.trace.calls.items() if name in self.pairs or calls == 1
        ]
        first = next((i for i, n in enumerate(names) if n in self.pairs), 0)
        return names[first:]

    def start(self, name: str) -> _LayerFit | NormFit:
        if name in self.pairs:
            return _LayerFit(
                name, self.dense_convs[name], self.pairs[name], self.trace.convs[name], self.batches
            )
        return NormFit(self.het_norms[name], self.dense_norms[name], self.trace.norms[name])

    def finish(self, name: str, running: _LayerFit | NormFit) -> None:
        if isinstance(running, NormFit):
            running.finish()
            return
        has_bias = self.pairs[name].grouped.bias is not None
        fit = running.finish(has_bias or bool(self.trace.norms_behind(name)))
        self.trace.convs[name].targets.clear()
        if fit is not None:
            self.fits[name] = fit

    def rescale(self) -> None:
        """Undo what the fit did to the length of filters, where it can be."""
        for name in self.fits:
            norms = [self.het_norms[norm] for norm in self.trace.norms_behind(name)]
            if norms:
                rescale(self.dense_convs[name], self.pairs[name], norms)


def calibrate(
    dense: nn.Module,
    het: nn.Module,
    batches: Sequence[Any],
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
    _warn_if_blank(batches)
    with _no_autocast(dense):
        return _run(dense, het, pairs, batches, forward, memory, show_progress)


def _warn_if_blank(batches: Sequence[Any]) -> None:
    """Say so if every image has one colour: nothing can be learnt from it."""
    images = [
        tensor
        for number in range(min(LOOKED_AT, len(batches)))
        for tensor in find_tensors(batches[number])
        if tensor.dim() >= 3
    ]
    if images and all((image == image.flatten()[:1]).all() for image in images):
        print_log(
            'HetConv: the calibration images are blank, all of one value: the layers that are '
            'fitted to them will be wrong on photographs',
            'current',
            logging.WARNING,
        )


def _no_autocast(model: nn.Module) -> torch.autocast:
    """Autocast is a thread's own: some of the passes would run under it."""
    device = next((p.device for p in model.parameters()), torch.device('cpu'))
    return torch.autocast(device.type, enabled=False)


def count_fitting(
    dense: nn.Module, het: nn.Module, batch: Any, forward: Forward = call, memory: float = MEMORY
) -> int:
    """How many batches like this one :func:`calibrate` runs once each, at least 1.

    The arguments are those of calibrate, which runs more batches anew for every
    layer and every batch norm.
    """
    stops = find_stops(dense, find_pairs(dense, het))
    held = held_by_a_pass(dense, stops, partial(forward, dense, batch))
    return max(1, int(memory // max(held, 1)))


def move_norms(
    dense: nn.Module,
    het: nn.Module,
    batches: Sequence[Any],
    forward: Forward = call,
    memory: float = MEMORY,
    show_progress: bool = False,
) -> None:
    """Fit batch-norm statistics only, for whatever weights `het` has.

    The arguments are those of :func:`calibrate`. They are moved from the
    dense network's by what the conversion changes on the images at hand.
    """
    with _no_autocast(dense):
        _run(dense, het, {}, batches, forward, memory, show_progress)


def _run(
    dense: nn.Module,
    het: nn.Module,
    pairs: dict[str, HetConv2d],
    batches: Sequence[Any],
    forward: Forward,
    memory: float,
    show_progress: bool,
) -> dict[str, Fit]:
    """Fit the layers in `pairs` and all batch norms, in order."""
    if len(batches) == 0:
        raise ValueError('calibration needs at least one batch of images')
    dense.eval()
    het.eval()
    steps = len(batches) + len(pairs)
    bar = ProgressBar(steps, file=sys.stderr) if show_progress else None

    def step() -> None:
        if bar is not None:
            bar.update()

    trace = trace_dense(dense, pairs, batches, forward, wanted_positions, step)
    held = held_by_a_pass(dense, find_stops(dense, pairs), partial(forward, dense, batches[0]))
    held *= len(batches)
    if held > memory:
        print_log(
            f'{len(batches)} unfinished forward passes would hold '
            f'{held / 2**30:.1f} GiB, more than {memory / 2**30:.1f}: every '
            'layer runs the images anew. Fewer or smaller images are faster',
            'current',
            level=logging.WARNING,
        )
    state = _Calibration(dense, het, pairs, trace, len(batches))

    def run(number: int) -> None:
        forward(het, batches[number])

    def visit(name: str, inputs: dict[int, Tensor]) -> None:
        running = state.start(name)
        for batch, x in inputs.items():
            running.add(batch, 0, x)
        finish(name, running)

    def finish(name: str, running: _LayerFit | NormFit) -> None:
        state.finish(name, running)
        if name in pairs:
            step()

    works = [partial(run, number) for number in range(len(batches))]
    # Where the passes wait for each other, a module that is called several
    # times is seen by its first call only.
    groups = groupby(state.stops(), lambda n: held <= memory and trace.calls[n] == 1)
    stops = dict(het.named_modules())
    with torch.no_grad():
        for together, names in groups:
            if together:
                modules = {name: stops[name] for name in names}
                run_side_by_side(works, modules, visit)
                continue
            for name in names:
                running = state.start(name)
                calls = trace.calls[name]
                run_one_by_one(works, stops[name], calls, running.add)
                finish(name, running)
    state.rescale()
    return state.fits
