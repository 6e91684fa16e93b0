"""Whether a file can be written, known before the work that fills it."""

import os
from pathlib import Path

from ..errors import UserError
from .preflight import check_writable


def check_writable_file(path: str | Path, what: str) -> None:
    """Make a file's folder; the file itself is not touched.

    Raises:
        UserError: it is a folder, or cannot be written.
    """
    if Path(path).is_dir():
        raise UserError(f'{what} {path} is a folder, name a file')
    check_writable(Path(path).parent, what)
    if Path(path).exists() and not os.access(path, os.W_OK):
        raise UserError(f'{what} {path} cannot be written to')
