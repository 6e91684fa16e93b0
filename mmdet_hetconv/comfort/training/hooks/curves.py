"""Curves of a training: losses, metric and learning rate, as a picture."""

import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from ....utils.announce import announce
from ....utils.errors import UserError
from ....utils.files import write_whole

Row = dict[str, Any]
# Ends of the names of metrics that are drawn, the first of them in a full line.
METRICS = ('bbox_mAP', 'bbox_mAP_50', 'segm_mAP', 'mAP', 'AP50')
# A series of so many points, or fewer, is drawn with a marker on each.
MARKED = 30


@dataclass
class Run:
    """What mmengine wrote of a training.

    Attributes:
        rows: of training iterations, by iteration.
        results: of validations, by epoch, or by iteration.
    """

    name: str
    rows: dict[int, Row] = field(default_factory=dict)
    results: dict[int, Row] = field(default_factory=dict)

    @property
    def by_epoch(self) -> bool:
        return any('epoch' in row for row in self.rows.values())

    def place(self, iteration: int) -> float:
        """Epochs at an iteration; the iteration itself where there are none."""
        if not self.by_epoch:
            return iteration
        # The last row of an epoch is near its end, or at it.
        length = max(i / row['epoch'] for i, row in self.rows.items() if 'epoch' in row)
        return iteration / length

    def series(self, rows: dict[int, Row], key: str) -> tuple[list[int], list[float]]:
        """Steps and values; those that are no finite numbers cannot be drawn."""
        found = {step: row[key] for step, row in sorted(rows.items()) if key in row}
        found = {step: value for step, value in found.items() if math.isfinite(value)}
        return list(found), list(found.values())


def read_run(folder: str | Path) -> Run:
    """The scalars in a work directory, of a training and what resumed it.

    Raises:
        UserError: there are none, or a line that is no JSON.
    """
    run = Run(Path(folder).name)
    for path in sorted(Path(folder).glob('*/vis_data/scalars.json')):
        train: dict[int, Row] = {}
        results: dict[int, Row] = {}
        for number, line in enumerate(path.read_text().splitlines(), 1):
            try:
                row = json.loads(line)
                (train if 'loss' in row else results)[int(row['step'])] = row
            except (ValueError, KeyError, TypeError) as error:
                raise UserError(f'{path}, line {number} is no row of scalars: {error}') from error
        for old, new in ((run.rows, train), (run.results, results)):
            for step in [step for step in old if new and step >= min(new)]:
                del old[step]
            old.update(new)
    if not run.rows:
        raise UserError(
            f'{folder} has no scalars of a training (TIME/vis_data/scalars.json, '
            'written by the LocalVisBackend)'
        )
    return run


def draw_curves(runs: Sequence[Run], path: str | Path) -> None:
    """Losses, metrics and learning rates of some trainings, over each other."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(8, 9), layout='constrained')
    losses, metrics, rates = figure.subplots(3, 1, sharex=True, height_ratios=(3, 3, 1.5))
    for number, run in enumerate(runs):
        # matplotlib leaves labels that begin with _ out of a legend.
        label = f'run {run.name}: ' if run.name.startswith('_') else f'{run.name}: '
        label = label if len(runs) > 1 else ''
        colour = f'C{number}'
        steps, values = run.series(run.rows, 'loss')
        places = [run.place(step) for step in steps]
        look = dict(color=colour, label=f'{label}training', **_marker(places))
        if len(values) > MARKED:
            losses.plot(places, values, color=colour, alpha=0.25, linewidth=1)
        losses.plot(places, _smoothed(values), **look)
        steps, values = run.series(run.results, 'val_loss')
        if steps:
            losses.plot(steps, values, 'o--', color=colour, label=f'{label}validation')
        for key, style in zip(_metrics(run), ('o-', 's:', 'd-.', 'v--')):
            steps, values = run.series(run.results, key)
            name = key.rpartition('/')[2]
            metrics.plot(steps, values, style, color=colour, label=f'{label}{name}')
        steps, values = run.series(run.rows, 'lr')
        places = [run.place(step) for step in steps]
        rates.plot(places, values, color=colour, **_marker(places))
    losses.set(ylabel='loss', ylim=(0, _highest(runs)))
    metrics.set(ylabel='metric')
    metrics.set_ylim(bottom=-0.02)  # a marker at 0 is whole
    rates.set(ylabel='learning rate', xlabel='epoch' if runs[0].by_epoch else 'iteration')
    rates.set_ylim(bottom=0)
    rates.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    rates.set_xlim(left=0)
    for axes in (losses, metrics, rates):
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[1]:
            axes.legend(fontsize=8)
    png = io.BytesIO()
    figure.savefig(png, format='png', dpi=100)
    write_whole(path, png.getvalue())


def _marker(places: Sequence[float]) -> dict[str, str]:
    """Points are shown where they are few; a single one has no line."""
    return dict(marker='.') if len(places) <= MARKED else {}


def _metrics(run: Run) -> list[str]:
    keys = dict.fromkeys(key for row in run.results.values() for key in row)
    return [key for end in METRICS for key in keys if key.rpartition('/')[2] == end]


def _smoothed(values: list[float]) -> list[float]:
    """The mean over a twentieth of the points to either side, of few points themselves."""
    width = len(values) // 20 if len(values) > MARKED else 0
    means = []
    for i in range(len(values)):
        near = values[max(0, i - width) : i + width + 1]
        means.append(sum(near) / len(near))
    return means


def _highest(runs: Sequence[Run]) -> float:
    """Above all points of a training, but above no more than 98 % where they are many."""
    tops = []
    for run in runs:
        for rows, key in ((run.rows, 'loss'), (run.results, 'val_loss')):
            values = sorted(run.series(rows, key)[1])
            if values:
                tops.append(values[int(0.98 * (len(values) - 1)) if len(values) > MARKED else -1])
    return 1.1 * max(tops, default=0) or 1.0


@HOOKS.register_module()
class CurvesHook(Hook):
    """Draws ``curves.png`` in the work directory after each validation or epoch."""

    # After what writes the scalars.
    priority = 'VERY_LOW'

    @master_only
    def after_train_epoch(self, runner) -> None:
        self._draw(runner)

    @master_only
    def after_val_epoch(self, runner, metrics=None) -> None:
        self._draw(runner)

    def _draw(self, runner) -> None:
        if not list(Path(runner.work_dir).glob('*/vis_data/scalars.json')):
            return
        try:
            draw_curves([read_run(runner.work_dir)], Path(runner.work_dir) / 'curves.png')
        except UserError as error:
            # No picture is worth a training.
            announce(f'curves.png is not drawn: {error}')
