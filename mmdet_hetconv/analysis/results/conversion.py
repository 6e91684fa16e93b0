"""Dense weights of a classifier converted: by way, P and fine-tuning."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from ...errors import UserError
from ...table import markdown_table
from .rows import Row, flags, grouped, number, options, origin, setting

CONVERSION = ('network', 'width', 'dense_epochs', 'batch_size', 'lr', 'amp')
CONVERSION += ('calibration_images', 'seed')
# What tells a result of one setting from another.
RESULT = ('way', 'p', 'tuned_epochs', 'tuning_lr')
Table = dict[tuple[str, ...], str]


def section(path: Path, rows: Sequence[Row], out: Path) -> Iterator[str]:
    for values, found in grouped(rows, CONVERSION).items():
        title = setting(CONVERSION, values)
        table = {
            tuple(row[key] for key in RESULT): row['accuracy'] for row in found
        }
        dense = table.get(('dense', '1', '0', ''))
        if dense is None:
            raise UserError(
                f'{path}, {title}: no row of the dense network; run '
                'benchmarks/conversion_cifar.py with --fine-tune 0'
            )
        yield f'### {title}\n\nThe dense network: {dense} %. Converted:\n'
        yield from untrained_table(table)
        yield from trained_table(table, number(dense))
        yield origin(path, found, '\n'.join(commands(found)))


def commands(found: Sequence[Row]) -> Iterator[str]:
    """What makes the rows of one setting."""
    row = found[0]
    keys = ('network', 'width', 'batch_size', 'lr', 'seed', 'amp')
    start = (
        f'python benchmarks/conversion_cifar.py --data DIR {flags(row, keys)} '
        f'\\\n    --epochs {row["dense_epochs"]} '
        f'--calib {row["calibration_images"]} '
    )
    converted = [
        row for row in found if row['way'] not in ('dense', 'scratch')
    ]
    scratch = any(row['way'] == 'scratch' for row in found)
    for (lr,), mine in grouped(converted, ['tuning_lr']).items():
        tuned = options(fine_tune=[row['tuned_epochs'] for row in mine])
        rate = f' --tuning-lr {lr}' if lr else ''
        parts = dict.fromkeys(row['p'] for row in mine)
        plain = options(p=[part for part in parts if '=' not in part])
        if plain:
            tail = ' --scratch' * (scratch and bool(lr))
            yield f'{start}{tuned}{rate} \\\n    {plain}{tail}'
            scratch = scratch and not tail
        for part in parts:
            if '=' in part:
                yield f'{start}{tuned}{rate} \\\n    --layers {part}'


def untrained_table(table: Table) -> Iterator[str]:
    """Right after the conversion, by way and P."""
    parts = plain_parts(table)
    ways = dict.fromkeys(way for way, p, *_ in table if p in parts)
    body = [
        (way, *(table.get((way, p, '0', ''), '') for p in parts))
        for way in ways
        if any((way, p, '0', '') in table for p in parts)
    ]
    head = ('no training, test %', *(f'P={p}' for p in parts))
    yield markdown_table(head, body) + '\n'


def trained_table(table: Table, dense: float) -> Iterator[str]:
    """All that was trained on, and parts that differ by layer."""
    parts = plain_parts(table)
    body = []
    for (way, p, tuned, lr), accuracy in table.items():
        if way == 'dense' or (tuned == '0' and p in parts):
            continue
        same = table.get(('dense', '1', tuned, lr)) if tuned != '0' else None
        body.append(
            (
                way,
                p,
                tuned,
                lr,
                accuracy,
                f'{number(accuracy) - dense:+.2f}',
                f'{number(accuracy) - number(same):+.2f}' if same else '',
            )
        )
    if not body:
        return
    head = ('conversion', 'P', 'epochs trained', 'learning rate', 'test %')
    head += ('against dense', 'against dense trained on as long')
    yield markdown_table(head, body) + '\n'
    for (way, _, tuned, lr), accuracy in table.items():
        if way == 'dense' and tuned != '0':
            more = setting(['epochs'], [tuned])
            yield f'Dense, trained on for {more} at {lr}: {accuracy} %.\n'


def plain_parts(table: Table) -> list[str]:
    """Those P, in rising order, that are the same in every layer."""
    parts = {p for _, p, tuned, _ in table if tuned == '0' and '=' not in p}
    return sorted(parts - {'1'}, key=number)
