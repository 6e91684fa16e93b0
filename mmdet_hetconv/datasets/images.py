"""Image files: which there are, and whether they are complete, without decoding."""

import os
import struct
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
from PIL import Image

from ..utils.errors import UserError
from .annotations import MOST_PIXELS

IMAGE_ENDINGS = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff')
_PNG = b'\x89PNG\r\n\x1a\n'
# Bytes read from a file's end. Cameras and editors append a few after an
# image's own end.
_TAIL = 4096
_THREADS = 16


def files_below(folder: str | Path) -> Iterator[Path]:
    """The files in a folder and in the folders in it, behind symbolic links, too."""
    seen = set()
    for inside, folders, files in os.walk(folder, followlinks=True):
        place = os.path.realpath(inside)
        if place in seen:  # by a link, which may even lead back
            folders.clear()
            continue
        seen.add(place)
        folders.sort()
        yield from (Path(inside, name) for name in files)


def images_below(folder: str | Path) -> Iterator[Path]:
    """Those of :func:`files_below` that are named as images are."""
    return (path for path in files_below(folder) if path.suffix.lower() in IMAGE_ENDINGS)


def what_is_wrong(path: str) -> str | None:
    """What keeps an image file from being read in full, or None.

    JPEG and PNG end in a marker that cannot occur before. An image of which
    the marker is not found at once is decoded, and so is every other format.
    """
    try:
        size = os.path.getsize(path)
        with open(path, 'rb') as file:
            head = file.read(24)
            file.seek(max(0, size - _TAIL))
            tail = file.read()
    except FileNotFoundError:
        return 'does not exist'
    except OSError as error:
        return f'cannot be read: {error.strerror}'
    if not head:
        return 'is empty'
    if head.startswith(b'\xff\xd8') and b'\xff\xd9' in tail:
        return None
    if head.startswith(_PNG) and b'IEND\xaeB`\x82' in tail:
        return _too_large(*struct.unpack('>II', head[16:24].ljust(8, b'\0')))
    return _decode(path)


def _too_large(width: int, height: int) -> str | None:
    if width * height <= MOST_PIXELS:
        return None
    return f'has {width} x {height} pixels, more than OpenCV reads'


def _decode(path: str) -> str | None:
    if not cv2.haveImageReader(path):
        return 'is not an image that OpenCV can read'
    try:
        with Image.open(path) as image:
            fault = _too_large(*image.size)
            if fault:
                return fault
            image.load()
    except Image.UnidentifiedImageError:
        return None  # a format of OpenCV's that Pillow does not know
    except Image.DecompressionBombError:
        return None  # OpenCV reads larger images than Pillow
    except (OSError, SyntaxError, ValueError) as error:
        return f'is truncated or damaged: {error}'
    return None


def check_images(paths: Iterable[str], named_by: str) -> None:
    """Raise UserError for the first image that is missing or truncated.

    Args:
        paths: of the images.
        named_by: the annotation file, for the message.
    """
    paths = list(paths)
    with ThreadPoolExecutor(_THREADS) as pool:
        for path, fault in zip(paths, pool.map(what_is_wrong, paths)):
            if fault:
                pool.shutdown(cancel_futures=True)
                raise UserError(f'image {path} {fault} (named by {named_by})')
