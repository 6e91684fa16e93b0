"""Trained classifiers converted, then distilled without labels or fine-tuned with them."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from mmdet_hetconv.utils.table import markdown_table

from .latency import device_of
from .rows import Row, column, flags, grouped, mean_and_spread, number, options, origin, seeds_of

SETTING = ('network', 'p', 'chosen', 'arrangement', 'images', 'steps', 'judged_on')
AVERAGED = ('dense', 'calibrated', 'distilled')
TUNING = (
    *('network', 'p', 'arrangement', 'distil_steps', 'taught'),
    *('epochs', 'rate', 'amp', 'judged_on'),
)


def section(path: Path, rows: Sequence[Row], out: Path) -> Iterator[str]:
    groups = grouped(rows, SETTING)
    order = sorted(
        groups,
        key=lambda values: (
            values[-1],
            values[0],
            *map(number, (values[1], *values[4:6])),
            *values[2:4],
        ),
    )
    body = [
        (
            *values,
            *(mean_and_spread(column(groups[values], key)) for key in AVERAGED),
            _seconds(groups[values]),
            seeds_of(groups[values]),
        )
        for values in order
    ]
    head = ('network', 'P', 'for each layer', 'arrangement', 'images', 'steps', 'judged on')
    head += ('dense %', 'calibrated %', 'distilled %', 'CPU seconds', 'seeds')
    yield markdown_table(head, body) + '\n'
    yield origin(path, rows, '\n'.join(commands(rows)))


def _seconds(rows: Sequence[Row]) -> str:
    """Of the rows that have them: of eight only the accuracies were kept."""
    return mean_and_spread(column([row for row in rows if row['cpu_seconds']], 'cpu_seconds'), 0)


def commands(rows: Sequence[Row]) -> Iterator[str]:
    """What makes the rows: one command for networks and P that go together."""
    for found in grouped(
        rows, ('images', 'steps', 'judged_on', 'seed', 'chosen', 'arrangement')
    ).values():
        depths = [row['network'].removeprefix('resnet') for row in found]
        yield (
            'python benchmarks/distillation_cifar.py --data DIR --weights DIR '
            f'{flags(found[0], ("images", "steps"))} \\\n    '
            + options(depth=depths, p=[row['p'] for row in found], seeds=[found[0]['seed']])
            + ' --per-layer' * (found[0]['chosen'] != 'uniform')
            + ' --permute' * (found[0]['arrangement'] != 'blocked')
            + device_of(found[0])
            + ' --held-out' * (found[0]['judged_on'] != 'test')
        )


def fine_tuned(path: Path, rows: Sequence[Row], out: Path) -> Iterator[str]:
    """The same networks trained on with labels."""
    body = [
        (
            *values,
            *(mean_and_spread(column(found, key)) for key in ('dense', 'calibrated', 'fine_tuned')),
            mean_and_spread(column(found, 'cpu_seconds'), 0),
            seeds_of(found),
        )
        for values, found in grouped(rows, TUNING).items()
    ]
    head = ('network', 'P', 'arrangement', 'steps of distillation', 'trained on')
    head += ('epochs', 'rate', 'bf16', 'judged on')
    head += ('dense %', 'calibrated %', 'fine-tuned %', 'CPU seconds', 'seeds')
    yield markdown_table(head, body) + '\n'
    lines = [
        'python benchmarks/finetuning_cifar.py --data DIR --weights DIR '
        f'{flags(row, ("distil_steps", "epochs", "rate"))} \\\n    '
        + options(depth=[row['network'].removeprefix('resnet')], p=[row['p']], seeds=[row['seed']])
        + device_of(row)
        + ' --amp' * (row['amp'] == 'True')
        + ' --permute' * (row['arrangement'] != 'blocked')
        + ' --labels-only' * (row['taught'] == 'labels')
        + ' --held-out' * (row['judged_on'] != 'test')
        for row in rows
    ]
    yield origin(path, rows, '\n'.join(lines))
