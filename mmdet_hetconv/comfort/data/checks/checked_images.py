"""Images that an earlier run has checked, kept in a cache file."""

import hashlib
import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ....utils.private_folder import private_folder

_THREADS = 16


class CheckedImages:
    """The images of one annotation file that are still to be checked.

    An image has been checked if its file has the same size and time of modification as
    then, and the same values are expected.

    Args:
        named_by (Path): the annotation file.
        images (Mapping): what is expected of each image, as JSON values by path.

    Attributes:
        new (list[str]): paths of the images that are to be checked.
    """

    def __init__(self, named_by: Path, images: Mapping[str, object]):
        digest = hashlib.sha256(str(Path(named_by).resolve()).encode())
        self._name = f'{digest.hexdigest()[:16]}.json'
        with ThreadPoolExecutor(_THREADS) as pool:
            stamps = pool.map(_stamp, images)
            # As JSON returns it: tuples become lists.
            self._found = json.loads(
                json.dumps(
                    {
                        path: [stamp, against]
                        for (path, against), stamp in zip(images.items(), stamps)
                    }
                )
            )
        known = self._read()
        self.new = [
            path
            for path, found in self._found.items()
            if found[0] is None or known.get(path) != found
        ]

    def _read(self) -> dict:
        try:
            file = private_folder('checked') / self._name
            content = json.loads(file.read_bytes())
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def keep(self) -> None:
        """Mark all images as checked; does nothing if the cache cannot be written."""
        try:
            file = private_folder('checked') / self._name
            part = file.with_name(f'{self._name}.{os.getpid()}')
            part.write_text(json.dumps(self._found))
            part.replace(file)
        except OSError:
            return


def _stamp(path: str) -> list[int] | None:
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return [found.st_size, found.st_mtime_ns]
