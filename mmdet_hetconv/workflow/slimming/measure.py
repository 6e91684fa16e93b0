"""Cost, metrics and detections of a detector in several forms."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from mmengine.config import Config
from mmengine.device import get_device
from torch import nn

from ...analysis import count_config
from ...utils.announce import announce
from ...utils.timing import times_in_turns

WARM_UP = 2
ROUNDS = 11


@dataclass
class Form:
    """One form of a detector, with its measurements.

    Attributes:
        kind: 'dense' or 'HetConv'.
        form: trained or deployed, and its precision, in words.
        cfg, model: the detector.
        weights: its checkpoint, for those who read a report.
        parameters: of the trained form.
        het_layers: how many of its convolutions are HetConv2d, in the trained form.
        shape: height and width of what the network sees of an image.
        macs: of that; None if they cannot be counted.
        times: milliseconds of one image, all that were taken.
        metrics: by name, of the config's test set; empty without annotations.
    """

    kind: str
    form: str
    cfg: Config
    model: nn.Module
    weights: str = ''
    parameters: int = 0
    het_layers: int = 0
    shape: tuple[int, int] = (0, 0)
    macs: int | None = None
    times: list[float] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return f'{self.kind}, {self.form}'

    def row(self) -> dict[str, Any]:
        """Its entry in a report."""
        return dict(
            label=self.label,
            config=str(self.cfg.filename),
            weights=self.weights,
            kind=self.kind,
            form=self.form,
            het_layers=self.het_layers,
            parameters=self.parameters,
            shape=list(self.shape),
            macs=self.macs,
            times=self.times,
            ms=median(self.times) if self.times else None,
            metrics=self.metrics,
        )


def measure(forms: Sequence[Form], batches: Sequence[dict], rounds: int = ROUNDS) -> None:
    """Count multiply-adds and take times of whole detectors, in turns.

    That is all that mmdet's test_step() does with one image: backbone to non-maximum
    suppression.

    Args:
        forms: their shape, macs and times are set.
        batches: for each form, one image through its test pipeline.
        rounds: times for each, at least 2.
    """
    runs = {
        number: _run(form.model, batch) for number, (form, batch) in enumerate(zip(forms, batches))
    }
    for number, form in enumerate(forms):
        for _ in range(WARM_UP):
            (sample,) = runs[number]()
        form.shape = tuple(sample.batch_input_shape)
        form.macs = _count_macs(form.cfg, form.shape)
    taken = times_in_turns(runs, rounds, get_device(), time.perf_counter)
    for number, form in enumerate(forms):
        form.times = taken[number]


def _run(model: nn.Module, batch: dict) -> Callable[[], list]:
    return lambda: model.test_step(batch)


def _count_macs(cfg: Config, shape: tuple[int, int]) -> int | None:
    """The MACs of a detector; None if it has components that cannot be counted."""
    try:
        return count_config(cfg.model, shape).total('macs')
    except (AttributeError, KeyError, RuntimeError, TypeError) as error:
        announce(f'{cfg.filename}: MACs not counted: {error}')
        return None


def boxes_on(model: nn.Module, batch: dict) -> list[list[float]]:
    """Label, x, y, width, height in pixels, score of each detection on one image."""
    (sample,) = model.test_step(batch)
    found = sample.pred_instances
    return [
        [label, *(round(value, 1) for value in (x1, y1, x2 - x1, y2 - y1)), round(score, 3)]
        for label, (x1, y1, x2, y2), score in zip(
            found.labels.tolist(), found.bboxes.tolist(), found.scores.tolist()
        )
    ]
