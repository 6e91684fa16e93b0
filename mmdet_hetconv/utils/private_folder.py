"""The user's cache folder, for files that are trusted or run."""

import os
import stat
from pathlib import Path

WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def check_private(path: Path) -> None:
    """Refuse a path that another user owns or may write to.

    Raises:
        PermissionError: another user owns it or may write to it.
    """
    if not hasattr(os, 'geteuid'):
        return  # Windows, where a user's folders are his alone
    found = path.stat()
    # What root wants to run he runs anyway.
    if found.st_uid not in (os.geteuid(), 0):
        raise PermissionError(f'{path} belongs to user {found.st_uid}')
    if found.st_mode & WRITABLE_BY_OTHERS:
        mode = stat.S_IMODE(found.st_mode)
        raise PermissionError(f'{path} is writable by others (mode {mode:o})')


def private_folder(inside: str) -> Path:
    """``mmdet_hetconv/INSIDE`` below $XDG_CACHE_HOME or ~/.cache.

    It is made if it is not there, for this user alone.

    Raises:
        OSError: it cannot be made, there is no home folder, or others may
            write into it.
    """
    folder = os.environ.get('XDG_CACHE_HOME')
    try:
        folder = Path(folder) if folder else Path.home() / '.cache'
    except RuntimeError as error:
        raise FileNotFoundError(f'no home folder: {error}') from error
    folder.mkdir(parents=True, exist_ok=True)
    for name in ('mmdet_hetconv', inside):
        folder = folder / name
        folder.mkdir(mode=0o700, exist_ok=True)
        check_private(folder)
    return folder
