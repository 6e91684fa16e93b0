"""Which images were found right at an earlier start."""

import hashlib
import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ....utils.private_folder import private_folder

_THREADS = 16


class CheckedImages:
    """The images of one annotation file, in the user's cache folder.

    An image counts as known while its file has the size and time of
    modification that it had, and is held against the same values.

    Args:
        named_by (Path): the annotation file.
        images (Mapping): by path, what each is held against, as JSON has it.

    Attributes:
        new (list[str]): the paths that are not known.
    """

    def __init__(self, named_by: Path, images: Mapping[str, object]):
        digest = hashlib.sha256(str(Path(named_by).resolve()).encode())
        self._name = f'{digest.hexdigest()[:16]}.json'
        with ThreadPoolExecutor(_THREADS) as pool:
            stamps = pool.map(_stamp, images)
            # As it comes out of the file: tuples are lists there.
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
        """All of them are right. Where nothing can be kept, nothing is."""
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
