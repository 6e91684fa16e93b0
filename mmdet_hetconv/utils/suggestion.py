"""Suggestions for a mistyped name."""

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path


def did_you_mean_file(path: str | Path, also: Iterable[Path] = ()) -> str:
    """', did you mean ...?' for a file that does not exist; '' if no other name is close.

    Others are those in its folder and the files in `also`. Where the folder is not
    there either, it is taken for mistyped.
    """
    path = Path(path)
    parent = path.parent
    if not parent.is_dir() and parent.parent.is_dir():
        folders = [p.name for p in parent.parent.iterdir() if p.is_dir()]
        close = difflib.get_close_matches(parent.name, folders, n=1)
        parent = parent.parent / close[0] if close else parent
        if (parent / path.name).is_file():
            return f'; did you mean {parent / path.name}?'
    files = [p for p in parent.iterdir() if p.is_file()] if parent.is_dir() else []
    found = {p.name: p for p in (*also, *files)}
    close = difflib.get_close_matches(path.name, found, n=1, cutoff=0.75)
    return f'; did you mean {found[close[0]]}?' if close else ''


def some(names: Sequence[str]) -> str:
    """The first five names, quoted."""
    shown = ', '.join(repr(name) for name in names[:5])
    return f'{shown}, ...' if len(names) > 5 else shown
