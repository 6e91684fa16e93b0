"""Dense weights of a classifier converted: by way, P and fine-tuning."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from ...errors import UserError
from ...table import markdown_table
from .rows import Row, flags, grouped, number, options, origin, setting

CONVERSION = ('network', 'width', 'dense_epochs', 'batch_size', 'lr', 'amp')
CONVERSION += ('calibration_images', 'seed')


def section(path: Path, rows: Sequence[Row], out: Path) -> Iterator[str]:
    for values, found in grouped(rows, CONVERSION).items():
        title = setting(CONVERSION, values)
        table = {
            (row['way'], row['p'], row['tuned_epochs']): row['accuracy']
            for row in found
        }
        dense = table.get(('dense', '1', '0'))
        if dense is None:
            raise UserError(
                f'{path}, {title}: no row of the dense network; run '
                'benchmarks/conversion_cifar.py with --fine-tune 0'
            )
        yield f'### {title}\n\nThe dense network: {dense} %. Converted:\n'
        yield from conversion_tables(table, number(dense))
        keys = ('network', 'width', 'batch_size', 'lr', 'seed', 'amp')
        parts = [row['p'] for row in found if row['way'] != 'dense']
        layers = [part for part in dict.fromkeys(parts) if '=' in part]
        tuned = options(
            fine_tune=[
                row['tuned_epochs'] for row in found if row['way'] != 'scratch'
            ]
        )
        command = (
            f'python benchmarks/conversion_cifar.py --data DIR '
            f'{flags(found[0], keys)} \\\n    --epochs {values[2]} '
            f'--calib {values[6]} {tuned}'
        )
        scratch = any(row['way'] == 'scratch' for row in found)
        lines = [
            f'{command} \\\n    '
            + options(p=[part for part in parts if '=' not in part])
            + ' --scratch' * scratch
        ]
        lines += [f'{command} \\\n    --layers {part}' for part in layers]
        yield origin(path, found, '\n'.join(lines))


def conversion_tables(
    table: dict[tuple[str, str, str], str], dense: float
) -> Iterator[str]:
    """Without training by way and P, then all that was trained on."""
    parts = {p for _, p, tuned in table if tuned == '0' and '=' not in p}
    parts = sorted(parts - {'1'}, key=number)
    ways = dict.fromkeys(way for way, p, _ in table if p in parts)
    body = [
        (way, *(table.get((way, p, '0'), '') for p in parts))
        for way in ways
        if any((way, p, '0') in table for p in parts)
    ]
    yield (
        markdown_table(
            ('no training, test %', *(f'P={p}' for p in parts)), body
        )
        + '\n'
    )
    body = []
    for (way, p, tuned), accuracy in table.items():
        if way == 'dense' or (tuned == '0' and p in parts):
            continue
        same = table.get(('dense', '1', tuned))
        body.append(
            (
                way,
                p,
                tuned,
                accuracy,
                f'{number(accuracy) - dense:+.2f}',
                f'{number(accuracy) - number(same):+.2f}'
                if same and tuned != '0'
                else '',
            )
        )
    if body:
        head = ('conversion', 'P', 'epochs trained', 'test %')
        head += ('against dense', 'against dense trained on as long')
        yield markdown_table(head, body) + '\n'
        kept = {
            tuned: accuracy
            for (way, _, tuned), accuracy in table.items()
            if way == 'dense' and tuned != '0'
        }
        for tuned, accuracy in kept.items():
            more = setting(['epochs'], [tuned])
            yield f'Dense, trained on for {more}: {accuracy} %.\n'
