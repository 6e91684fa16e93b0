"""Milliseconds of single layers inside a deployed detector, at several p."""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from ..export.onnx import RawOutputs
from ..kernels import PlannedConv2d, first_run
from ..trace import hooked
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
    convs = {name: m for name, m in model.named_modules() if isinstance(m, PlannedConv2d)}
    started: dict[str, float] = {}
    spent: Counter[str] = Counter()

    def before(name: str, x: Any) -> None:
        started[name] = time.perf_counter()

    def after(name: str, x: Any, y: Any) -> None:
        spent[name] += 1e3 * (time.perf_counter() - started[name])

    def run() -> None:
        spent.clear()
        with hooked(convs, before, after):
            raw(images)
        for name, ms in spent.items():
            layers.setdefault(name, {}).setdefault(p, []).append(ms)

    return run
