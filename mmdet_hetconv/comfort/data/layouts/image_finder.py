"""Find image files by the names that annotation tools on other machines gave them."""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from ....utils.errors import UserError
from ....utils.images import images_below

# Label Studio's prefix for the name of an uploaded file.
_UPLOAD = re.compile(r'^[0-9a-f]{8}-')
_LOCAL_FILES = '?d='


def find_in_any_case(path: Path) -> Path | None:
    """A file or folder by its path in any letter case; None if there is none.

    Raises:
        UserError: several match, and none exactly.
    """
    # Path.exists() fails for a name that is too long.
    if os.path.exists(path):
        return path
    parent = find_in_any_case(path.parent) if path.parent != path else None
    if parent is None or not parent.is_dir():
        return None
    found = sorted(p for p in parent.iterdir() if p.name.lower() == path.name.lower())
    if len(found) > 1:
        names = ', '.join(p.name for p in found)
        raise UserError(f'{parent} has {len(found)} spellings of {path.name}: {names}')
    return found[0] if found else None


class ImageFinder:
    """Finds images in folders by the names in an annotation file.

    Tries a name as it is, then without backslashes, percent-encoding and Label Studio's
    prefixes, then without its leading folders, which may be those of another machine.

    Args:
        folders: of the images, by priority.
    """

    def __init__(self, folders: Sequence[Path]):
        self._folders = [folder for folder in folders if folder.is_dir()]
        self._below: dict[str, Path] | None = None
        self._names: dict[Path, str] = {}

    def __call__(self, name: str) -> Path | None:
        """The image's file; None if there is none.

        Raises:
            UserError: another name has already led to the same file.
        """
        found = self._as_named(name) or self._without_folders(name)
        if found:
            other = self._names.setdefault(found, name)
            if os.path.normpath(other) != os.path.normpath(name):
                raise UserError(f'{name} and {other} may both be the image {found}')
        return found

    def _as_named(self, name: str) -> Path | None:
        places = (folder / s for s in _spellings(name) for folder in self._folders)
        return next((place for place in places if os.path.isfile(place)), None)

    def _without_folders(self, name: str) -> Path | None:
        if self._below is None:
            self._below = {
                path.relative_to(folder).as_posix().lower(): path
                for folder in reversed(self._folders)
                for path in images_below(folder)
            }
        for spelling in _spellings(name):
            parts = PurePosixPath(spelling.lower()).parts
            for start in range(len(parts)):
                found = self._below.get('/'.join(parts[start:]))
                if found:
                    return found
        return None


def _spellings(name: str) -> Iterator[str]:
    yield name
    name = name.replace('\\', '/').rpartition(_LOCAL_FILES)[2]
    plain = unquote(name).replace('\\', '/')
    yield from (name, plain)
    path = PurePosixPath(plain)
    yield str(path.with_name(_UPLOAD.sub('', path.name))) if path.name else plain


def relative_name(path: Path, root: Path) -> str:
    """A file's name for a data set in a folder; absolute if it lies elsewhere."""
    path, root = Path(os.path.abspath(path)), Path(os.path.abspath(root))
    return (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()
