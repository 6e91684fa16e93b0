"""Tables: plain text, Markdown, and CSV files."""

import csv
from collections.abc import Sequence
from pathlib import Path


def read_rows(path: str | Path) -> list[dict[str, str]]:
    """The rows of a CSV file; an empty list if the file does not exist."""
    path = Path(path)
    if not path.exists():
        return []
    with open(path, newline='') as file:
        return list(csv.DictReader(file))


def write_rows(path: str | Path, rows: Sequence[dict]) -> None:
    """Write rows that have the same columns to a CSV file."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, 'w', newline='') as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator='\n')
        writer.writeheader()
        writer.writerows(rows)


def format_table(head: Sequence[str], rows: Sequence[Sequence]) -> str:
    """Format a plain-text table; cells that begin with a digit are right-aligned.

    Example:
        >>> print(format_table(('part', 'MACs'), [('neck', '52.7 G')]))
        part    MACs
        ----  ------
        neck  52.7 G
    """
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(head, *cells)]
    right = [
        bool(column) and all(cell[:1].isdigit() or not cell for cell in column)
        for column in zip(*cells)
    ] or [False] * len(head)

    def line(row):
        return '  '.join(
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(row, widths, right)
        ).rstrip()

    rule = ['-' * width for width in widths]
    return '\n'.join(map(line, [list(head), rule, *cells]))


def markdown_table(head: Sequence[str], rows: Sequence[Sequence]) -> str:
    """Format a Markdown table; the first column is left-aligned.

    Example:
        >>> print(markdown_table(('part', 'MACs'), [('neck', '52.7 G')]))
        | part | MACs |
        |---|---:|
        | neck | 52.7 G |
    """
    rule = '|---' + '|---:' * (len(head) - 1) + '|'
    lines = [f'| {" | ".join(map(str, row))} |' for row in (head, *rows)]
    return '\n'.join([lines[0], rule, *lines[1:]])


def with_unit(number: float) -> str:
    """Format a count with three decimals and k, M or G.

    Example:
        >>> with_unit(2_856_000_000)
        '2.856 G'
    """
    for size, unit in ((1e9, 'G'), (1e6, 'M'), (1e3, 'k')):
        if number >= size:
            return f'{number / size:.3f} {unit}'
    return f'{number:g}'


def share_saved(before: float, after: float) -> str:
    """By how much `after` is smaller, in per cent of `before`."""
    return f'{100 * (1 - after / before):.1f} %' if before else ''
