"""Dense weights of a classifier converted: by way, P and fine-tuning."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from mmdet_hetconv.utils.errors import UserError
from mmdet_hetconv.utils.table import markdown_table

from .rows import Row, flags, grouped, number, options, origin, setting

CONVERSION = ('network', 'width', 'dense_epochs', 'batch_size', 'lr', 'amp', 'label_smoothing')
CONVERSION += ('calibration_images', 'seed')
# What tells a result of one setting from another.
RESULT = ('way', 'p', 'tuned_epochs', 'tuning_lr')
Table = dict[tuple[str, ...], str]


def section(path: Path, rows: Sequence[Row], out: Path) -> Iterator[str]:
    for values, found in grouped(rows, CONVERSION).items():
        title = setting(CONVERSION, values)
        table = {tuple(row[key] for key in RESULT): row['accuracy'] for row in found}
        dense = table.get(('dense', '1', '0', ''))
        if dense is None:
            raise UserError(
                f'{path}, {title}: no row of the dense network; run '
                'benchmarks/conversion_cifar.py with --fine-tune 0'
            )
        yield f'### {title}\n\nThe dense network: {dense} %. Converted:\n'
        yield from plain_tables(table)
        yield from layers_table(table)
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
    converted = [row for row in found if row['way'] not in ('dense', 'scratch')]
    tunings = grouped(converted, ['tuning_lr'])
    with_scratch = None
    if any(row['way'] == 'scratch' for row in found):
        with_scratch = next((lr for (lr,) in tunings if lr), None)
    for (lr,), mine in tunings.items():
        tuned = options(fine_tune=[row['tuned_epochs'] for row in mine])
        rate = f' --tuning-lr {lr}' if lr else ''
        parts = dict.fromkeys(row['p'] for row in mine)
        plain = options(p=[part for part in parts if '=' not in part])
        if plain:
            tail = ' --scratch' * (lr == with_scratch)
            yield f'{start}{tuned}{rate} \\\n    {plain}{tail}'
        for part in parts:
            if '=' in part:
                yield f'{start}{tuned}{rate} \\\n    --layers {part}'


def plain_tables(table: Table) -> Iterator[str]:
    """By way and P, for those P that are the same in every layer."""
    plain = {key for key in table if key[1] != '1' and '=' not in key[1]}
    parts = sorted({p for _, p, *_ in plain}, key=number)
    ways = dict.fromkeys(way for way, *_ in table)
    trainings = {(way == 'scratch', number(tuned), tuned, lr) for way, _, tuned, lr in plain}
    for scratch, _, tuned, lr in sorted(trainings):
        body = [
            (way, *(table.get((way, p, tuned, lr), '') for p in parts))
            for way in ways
            if (way == 'scratch') == scratch and any((way, p, tuned, lr) in plain for p in parts)
        ]
        head = (f'{training(tuned, lr)}, test %', *(f'P={p}' for p in parts))
        yield markdown_table(head, body) + '\n'
        same = table.get(('dense', '1', tuned, lr))
        if tuned != '0' and same is not None:
            yield f'The dense network, trained on as long: {same} %.\n'


def layers_table(table: Table) -> Iterator[str]:
    """Of those P that differ by layer."""
    body = [
        (p, way, training(tuned, lr), accuracy)
        for (way, p, tuned, lr), accuracy in table.items()
        if '=' in p
    ]
    if body:
        head = ('P by layer', 'conversion', 'training', 'test %')
        yield markdown_table(head, body) + '\n'


def training(tuned: str, lr: str) -> str:
    """What followed on the start, in words."""
    if tuned == '0':
        return 'no training'
    rate = f' at {lr}' if lr else ''
    return setting(['epochs'], [tuned]) + rate
