"""Time and memory that a calibrated conversion takes."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from mmdet_hetconv.utils.table import markdown_table

from .rows import Row, flags, origin


def section(path: Path, rows: Sequence[Row], out: Path) -> Iterator[str]:
    keys = ('network', 'p', 'images', 'permuted', 'layers', 'seconds')
    keys += ('cpu_seconds', 'peak_gib')
    head = [key.replace('_', ' ') for key in keys]
    body = [[row[key] for key in keys] for row in rows]
    yield markdown_table(head, body) + '\n'
    commands = [
        'python benchmarks/conversion_cost.py '
        + flags(row, ('network', 'p', 'images'))
        + ' --permute' * (row['permuted'] == 'True')
        for row in rows
    ]
    yield origin(path, rows, '\n'.join(commands))
