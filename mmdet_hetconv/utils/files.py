"""Files that are written atomically."""

import contextlib
import errno
import io
import os
import tempfile
from pathlib import Path

import torch

from .errors import UserError

# What a system says when nothing more can be written: disk, quota, limit.
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def check_writable(folder: str | Path, what: str) -> None:
    """Create a folder; raise UserError if it cannot be written to."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b'0')
    except OSError as error:
        raise UserError(f'{what} {folder} cannot be written to: {error.strerror}') from error


def check_writable_file(path: str | Path, what: str) -> Path:
    """Create a file's folder and check it before the long work begins.

    Returns:
        Path: of the file, which is not touched.

    Raises:
        UserError: it is a folder, or cannot be written.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        raise UserError(f'{what} {path} is a folder, name a file')
    check_writable(path.parent, what)
    if path.exists() and not os.access(path, os.W_OK):
        raise UserError(f'{what} {path} cannot be written to')
    return path


def unfinished(path: Path) -> Path:
    """The temporary name of a file that is being written, in the same folder."""
    return path.with_name(f'.{path.name}.part')


def write_whole(path: str | Path, data: bytes) -> None:
    """Write atomically: readers see the old file or the whole new one.

    Raises:
        OSError: from open() or write(); no partial file remains.
    """
    path = Path(path)
    part = unfinished(path)
    try:
        with open(part, 'wb') as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        error.filename = str(path)  # write() and fsync() name none
        raise
    finally:
        part.unlink(missing_ok=True)
    # The new name, too, has to survive a power cut.
    folder = os.open(path.parent, os.O_RDONLY)
    with contextlib.suppress(OSError):  # not every file system can
        os.fsync(folder)
    os.close(folder)


def save_whole(content: dict, path: str | Path) -> None:
    """torch.save() by :func:`write_whole`.

    Raises:
        UserError: the file cannot be written.
    """
    # torch.save() itself says "unexpected pos" where a disk is full.
    buffer = io.BytesIO()
    torch.save(content, buffer)
    try:
        # Not getbuffer(), though this is no copy either: an error's traceback
        # would keep the view, and collecting it crashes CPython 3.12.1.
        write_whole(path, buffer.getvalue())
    except OSError as error:
        raise UserError(f'{path} cannot be written: {error.strerror}') from error
