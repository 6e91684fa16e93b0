"""Errors from quantizing single layers: of their own outputs, and further on."""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from ..kernels import PlannedConv2d
from ..kernels.weights import Int8, Levels
from ..trace import Recording, hooked
from ..utils.progress import progress_bar
from .byte_outputs import byte_outputs
from .int8_levels import Run

# Longest side of images, in pixels, on which the network runs once for each layer.
SIDE = 320


def own_errors(
    convs: dict[str, PlannedConv2d],
    levels: dict[str, Levels],
    model: nn.Module,
    batches: Sequence[Any],
    run: Run,
) -> dict[str, float]:
    """By layer, squared error over the variance of its own output, the largest of all calls.

    The variance is taken within channels, so that a large bias hides no error.
    """
    errors = dict.fromkeys(levels, 0.0)
    names = {convs[name]: name for name in levels}

    def look(conv: PlannedConv2d, args: Any, kwargs: Any, output: Tensor) -> None:
        if not output.numel():
            return
        name = names[conv]
        conv.int8 = Int8(levels[name])
        try:
            error = (conv.forward(*args, **kwargs) - output).float().square().sum()
        finally:
            conv.int8 = None
        y = output.float()
        variance = (y - y.mean((-2, -1), keepdim=True)).square().sum()
        share = float(error / variance) if variance else float('inf')
        errors[name] = max(errors[name], share)

    with ExitStack() as stack:
        for conv in names:
            stack.callback(conv.register_forward_hook(look, with_kwargs=True).remove)
        for batch in batches:
            run(model, batch)
    return errors


def propagated_errors(
    convs: dict[str, PlannedConv2d],
    names: list[str],
    given: dict[str, Levels],
    model: nn.Module,
    batches: Sequence[Any],
    run: Run,
    recordings: Sequence[Recording],
    show_progress: bool,
) -> dict[str, float]:
    """By layer, the error that quantizing it alone adds where other modules read maps.

    The network runs once for each layer, so large images are cut to their centres.
    """
    batches = [_centre(model, batch, run) for batch in batches]
    ends = set(convs) - byte_outputs(convs, recordings, set(convs))

    def outputs_of(batch: Any) -> dict[str, Tensor]:
        seen: dict[str, list[Tensor]] = {}

        def look(name: str, x: Tensor, y: Tensor) -> None:
            seen.setdefault(name, []).append(y.float().flatten())

        with hooked({name: convs[name] for name in ends}, after=look):
            run(model, batch)
        return {name: torch.cat(ys) for name, ys in seen.items()}

    def outputs() -> list[dict[str, Tensor]]:
        return [outputs_of(batch) for batch in batches]

    wanted = outputs()
    errors = {}
    with progress_bar('Layers that int8 changes most', len(names), show_progress) as step:
        for name in names:
            convs[name].int8 = Int8(given[name])
            try:
                errors[name] = _relative_error(outputs(), wanted)
            finally:
                convs[name].int8 = None
            step()
    return errors


def _centre(model: nn.Module, batch: Any, run: Run) -> Any:
    """The centre of images with sides longer than SIDE, if the model runs on it."""
    if not isinstance(batch, Tensor) or batch.dim() != 4 or max(batch.shape[2:]) <= SIDE:
        return batch
    top, left = (max(0, side - SIDE) // 2 for side in batch.shape[2:])
    centre = batch[:, :, top : top + SIDE, left : left + SIDE]
    try:
        run(model, centre)
    except Exception:  # the model takes images of one size
        return batch
    return centre


def _relative_error(found: list[dict[str, Tensor]], wanted: list[dict[str, Tensor]]) -> float:
    """The largest |found - wanted|^2 / |wanted|^2 of all feature maps.

    Maps whose shapes differ, as the number of regions may, are skipped.
    """
    shares = []
    for mine, theirs in zip(found, wanted, strict=True):
        for name, y in theirs.items():
            if name in mine and mine[name].shape == y.shape and y.any():
                shares.append(float((mine[name] - y).square().sum() / y.square().sum()))
    return max(shares, default=0.0)
