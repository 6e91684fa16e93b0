"""Rows of measurements in CSV files, with the machine and the versions."""

import csv
from pathlib import Path

from mmdet_hetconv.utils.machine import machine
from mmdet_hetconv.utils.table import read_rows

RESULTS = Path(__file__).parent / 'results'


def append_row(path: str | Path, row: dict) -> None:
    """Append one row, with :func:`machine`; a new file gets a header.

    Raises:
        ValueError: the file has other columns.
    """
    path = Path(path)
    row = row | machine()
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists() or path.stat().st_size == 0
    if not new:
        with open(path, newline='') as file:
            columns = next(csv.reader(file))
        if columns != list(row):
            raise ValueError(f'{path} has columns {columns}, not {list(row)}')
    with open(path, 'a', newline='') as file:
        writer = csv.DictWriter(file, list(row), lineterminator='\n')
        if new:
            writer.writeheader()
        writer.writerow(row)


def has_row(path: str | Path, setting: dict) -> bool:
    """Whether a row with these values is in the file."""
    return any(
        all(row.get(key) == str(value) for key, value in setting.items()) for row in read_rows(path)
    )
