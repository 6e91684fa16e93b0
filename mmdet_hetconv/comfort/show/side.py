"""One of the detectors that are compared, and what it costs."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from statistics import median, quantiles

import numpy as np

from ...analysis import build_detector, count_config
from ...layers import HetConv2d
from ...utils.announce import announce
from ...utils.timing import times_in_turns
from .inferencer import HetInferencer

_WARM_UP = 2


@dataclass
class Side:
    """A detector in one form, and what is known of it.

    Attributes:
        name: 'A' or 'B', or of one that is only measured beside them.
        config, weights: its files.
        inferencer: the detector.
        het_layers: how many of its convolutions are HetConv2d.
        parameters: of the trained form.
        shape: height and width of what the network sees of an image.
        macs: of that, None if they cannot be counted.
        times: milliseconds of one image, all that were taken.
        metrics: COCO's on the images, or the config's on its test set; empty
            without annotations.
    """

    name: str
    config: str
    weights: str
    inferencer: HetInferencer
    het_layers: int
    parameters: int
    shape: tuple[int, int] = (0, 0)
    macs: int | None = None
    times: list[float] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)

    @property
    def title(self) -> str:
        return f'{self.name}: {Path(self.config).stem}'

    @property
    def label(self) -> str:
        """The kind of detector, its form and its precision."""
        return f'{"HetConv" if self.het_layers else "dense"}, {self.inferencer.form}'

    def spread(self) -> tuple[float, float, float]:
        """Median, 10 % and 90 % quantile of the times, milliseconds."""
        deciles = quantiles(self.times, n=10, method='inclusive')
        return median(self.times), deciles[0], deciles[-1]


def load_side(name: str, config: str, weights: str, deploy: bool) -> Side:
    """A detector by its files.

    Raises:
        UserError: a mistake in one of them.
    """
    inferencer = HetInferencer(config, weights, deploy)
    # The one that is loaded may be folded.
    model = build_detector(inferencer.cfg.model)
    return Side(
        name,
        config,
        weights,
        inferencer,
        sum(isinstance(m, HetConv2d) for m in model.modules()),
        sum(p.numel() for p in model.parameters()),
    )


def measure(sides: Sequence[Side], image: np.ndarray, rounds: int) -> None:
    """Count MACs and take times of whole detectors, in turns.

    That is all that mmdet's test_step() does with an image of the test
    pipeline's size: backbone to non-maximum suppression.

    Args:
        sides: their shape, macs and times are set.
        image (np.ndarray): BGR.
        rounds (int): times for each, at least 2.
    """
    runs, device = {}, 'cpu'
    for side in sides:
        inferencer = side.inferencer
        batch = inferencer.collate([image])
        runs[side.name] = _run(inferencer, batch)
        for _ in range(_WARM_UP):
            (sample,) = runs[side.name]()
        side.shape = tuple(sample.batch_input_shape)
        side.macs = _count_macs(inferencer, side.shape)
        # A deployed detector may have buffers alone.
        tensors = chain(inferencer.model.parameters(), inferencer.model.buffers())
        device = next(tensors).device.type
    taken = times_in_turns(runs, rounds, device, time.perf_counter)
    for side in sides:
        side.times = taken[side.name]


def _run(inferencer: HetInferencer, batch: dict):
    return lambda: inferencer.forward(batch)


def _count_macs(inferencer: HetInferencer, shape: tuple[int, int]) -> int | None:
    """None for a detector that is not made of the parts that are known."""
    try:
        return count_config(inferencer.cfg.model, shape).total('macs')
    except (AttributeError, KeyError, RuntimeError, TypeError) as error:
        announce(f'{inferencer.cfg.filename}: MACs not counted: {error}')
        return None
