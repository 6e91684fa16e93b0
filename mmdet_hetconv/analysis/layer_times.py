"""Milliseconds of single layers inside a deployed detector, at several p."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from ..deploy.onnx import RawOutputs
from ..kernels import PlannedConv2d, first_run
from ..utils.timing import times_in_turns

ROUNDS = 7
WARM_UP = 2


@torch.no_grad()
def layer_times(
    deployed: Mapping[int, nn.Module], images: Tensor
) -> tuple[dict[str, dict[int, float]], dict[int, float]]:
    """Time backbone, neck and dense head, all in turns.

    Args:
        deployed: the same detector by the p of its layers, in inference form.

    Shape:
        images (B, C, H, W).

    Returns:
        milliseconds by name of the convolution in the trained model and p, and of
        the whole by p.
    """
    layers: dict[str, dict[int, list[float]]] = {}
    runs: dict[str, Callable[[], object]] = {}
    for p, model in deployed.items():
        raw = RawOutputs(model)
        with first_run(model, f'Timing kernels, p = {p}'):
            raw(images)
        for _ in range(WARM_UP - 1):
            raw(images)
        runs[str(p)] = _timed(model, p, raw, images, layers)
    totals = times_in_turns(runs, ROUNDS, 'cpu', time.perf_counter)
    by_layer = {n: {p: median(ms) for p, ms in by_p.items()} for n, by_p in layers.items()}
    return by_layer, {int(p): median(ms) for p, ms in totals.items()}


def _timed(
    model: nn.Module,
    p: int,
    raw: RawOutputs,
    images: Tensor,
    layers: dict[str, dict[int, list[float]]],
) -> Callable[[], object]:
    def run() -> None:
        spent: dict[str, float] = {}
        with _watching(model, spent):
            raw(images)
        for name, ms in spent.items():
            layers.setdefault(name, {}).setdefault(p, []).append(ms)

    return run


@contextmanager
def _watching(model: nn.Module, spent: dict[str, float]) -> Iterator[None]:
    """Add up the milliseconds of each convolution's calls."""
    started: dict[str, float] = {}

    def hooks(name: str) -> tuple[Callable[..., None], Callable[..., None]]:
        def before(*_: Any) -> None:
            started[name] = time.perf_counter()

        def after(*_: Any) -> None:
            spent[name] = spent.get(name, 0.0) + 1e3 * (time.perf_counter() - started[name])

        return before, after

    handles = []
    for name, module in model.named_modules():
        if isinstance(module, PlannedConv2d):
            before, after = hooks(name)
            handles.append(module.register_forward_pre_hook(before))
            handles.append(module.register_forward_hook(after))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
