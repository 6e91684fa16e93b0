"""Trained classifiers converted, calibrated and distilled, without labels."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from mmdet_hetconv.utils.table import markdown_table

from .rows import Row, column, flags, grouped, mean_and_spread, number, options, origin, seeds_of

SETTING = ('network', 'p', 'chosen', 'images', 'steps', 'judged_on')
AVERAGED = ('dense', 'calibrated', 'distilled')


def section(path: Path, rows: Sequence[Row], out: Path) -> Iterator[str]:
    groups = grouped(rows, SETTING)
    order = sorted(
        groups,
        key=lambda values: (
            values[-1],
            values[0],
            *map(number, (values[1], *values[3:5])),
            values[2],
        ),
    )
    body = [
        (
            *values,
            *(mean_and_spread(column(groups[values], key)) for key in AVERAGED),
            mean_and_spread(column(groups[values], 'cpu_seconds'), 0),
            seeds_of(groups[values]),
        )
        for values in order
    ]
    head = ('network', 'P', 'for each layer', 'images', 'steps', 'judged on')
    head += ('dense %', 'calibrated %', 'distilled %', 'CPU seconds', 'seeds')
    yield markdown_table(head, body) + '\n'
    yield origin(path, rows, '\n'.join(commands(rows)))


def commands(rows: Sequence[Row]) -> Iterator[str]:
    """What makes the rows: one command for networks and P that go together."""
    for found in grouped(rows, ('images', 'steps', 'judged_on', 'seed', 'chosen')).values():
        depths = [row['network'].removeprefix('resnet') for row in found]
        yield (
            'python benchmarks/distillation_cifar.py --data DIR --weights DIR '
            f'{flags(found[0], ("images", "steps"))} \\\n    '
            + options(depth=depths, p=[row['p'] for row in found], seeds=[found[0]['seed']])
            + ' --per-layer' * (found[0]['chosen'] != 'uniform')
            + ' --held-out' * (found[0]['judged_on'] != 'test')
        )
