"""Milliseconds of whole detectors and of single layers."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

from mmdet_hetconv.utils.errors import UserError
from mmdet_hetconv.utils.table import markdown_table

from .rows import Row, column, grouped, origin


def detectors(path: Path, rows: Sequence[Row], out: Path) -> Iterator[str]:
    """A table of tools/benchmark.py, nothing for another file."""
    if 'form' not in rows[0]:
        return
    for config in dict.fromkeys(row['config'] for row in rows):
        forms = {row['form'] for row in rows if row['config'] == config}
        if not any(form.startswith('dense') for form in forms):
            raise UserError(f'{path}: {config} has no row of the dense detector')
    head = ('config', 'form', 'image', 'images', 'ms', 'p10', 'p90')
    head += ('G MACs', 'time gain', 'efficiency')
    keys = ('config', 'form', 'image', 'batch', 'ms', 'p10', 'p90', 'gmacs')
    keys += ('gain', 'efficiency')
    body = [[row[key] for key in keys] for row in rows]
    yield markdown_table(head, body) + '\n'
    row = rows[0]
    whole = row['whole'] == 'True'
    yield 'All of the detector.\n' if whole else 'Without RoI head and NMS.\n'
    yield origin(
        path,
        rows,
        f'python tools/benchmark.py configs/{row["config"]}.py '
        f'--shape {row["image"].replace("x", " ")}{" --whole" * whole}'
        f'{device_of(row)} --batch {row["batch"]} \\\n'
        f'    --out benchmarks/results/{path.stem}',
    )


def device_of(row: Row) -> str:
    """The option of a command that a row's machine tells."""
    return '' if row['machine'].startswith('CPU') else ' --device cuda'


def layers(path: Path, rows: Sequence[Row], out: Path) -> Iterator[str]:
    """A summary of benchmarks/latency.py, nothing for another file."""
    if 'time gain' not in rows[0]:
        return
    body = [
        (
            f'P={p}',
            len(mine),
            f'{min(column(mine, "time gain")):.2f}',
            f'{median(column(mine, "time gain")):.2f}',
            f'{max(column(mine, "time gain")):.2f}',
            f'{median(column(mine, "efficiency")):.2f}',
        )
        for (p,), mine in grouped(rows, ['p']).items()
    ]
    head = ('layers, against the best dense', 'layers', 'least gain')
    head += ('median gain', 'largest gain', 'median efficiency')
    yield markdown_table(head, body) + '\n'
    row = rows[0]
    yield origin(
        path,
        rows,
        f'python benchmarks/latency.py{device_of(row)} --precision {row["precision"]} '
        f'--batch {row["batch"]} \\\n'
        f'    --out benchmarks/results/{path.stem}',
    )
