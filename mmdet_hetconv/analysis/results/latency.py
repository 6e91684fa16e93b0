"""Milliseconds of whole detectors and of single layers."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

from ...engine.errors import UserError
from ...table import markdown_table
from .rows import Row, column, grouped, origin


def detectors(path: Path, rows: Sequence[Row], out: Path) -> Iterator[str]:
    """A table of tools/benchmark.py, nothing for another file."""
    if 'form' not in rows[0]:
        return
    for config in dict.fromkeys(row['config'] for row in rows):
        forms = {row['form'] for row in rows if row['config'] == config}
        if not any(form.startswith('dense') for form in forms):
            raise UserError(
                f'{path}: {config} has no row of the dense detector'
            )
    head = ('config', 'form', 'images', 'ms', 'p10', 'p90', 'G MACs')
    head += ('time gain', 'efficiency')
    keys = ('config', 'form', 'batch', 'ms', 'p10', 'p90', 'gmacs')
    keys += ('gain', 'efficiency')
    body = [[row[key] for key in keys] for row in rows]
    yield markdown_table(head, body) + '\n'
    yield origin(
        path,
        rows,
        f'python tools/benchmark.py configs/{rows[0]["config"]}.py '
        f'--batch {rows[0]["batch"]} --out benchmarks/results/{path.stem}',
    )


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
    name = f'benchmarks/results/{path.stem}'
    yield origin(path, rows, f'python benchmarks/latency.py --out {name}')
