"""Image files: found below a folder, and checked for completeness without decoding."""

import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from PIL import Image

from .errors import UserError

# OpenCV reads no larger image.
MOST_PIXELS = 2**30
IMAGE_ENDINGS = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff')
_PNG = b'\x89PNG\r\n\x1a\n'
# Bytes read from a file's end. Cameras and editors append a few after an
# image's own end.
_TAIL = 4096
_THREADS = 16
# Folders of copies and previews, which tools and systems leave beside images.
_OF_TOOLS = ('__MACOSX', '@eaDir', '$RECYCLE.BIN')
# JPEG's start of scan, which the pixels follow, and its markers without a length.
_SCAN = 0xDA
_BARE_MARKERS = {0x01, *range(0xD0, 0xD9)}


def files_below(folder: str | Path) -> Iterator[Path]:
    """All files below a folder; symbolic links are followed.

    Hidden files are left out: they are copies of editors and notebooks, or previews.
    """
    seen = set()
    for inside, folders, files in os.walk(folder, followlinks=True):
        place = os.path.realpath(inside)
        if place in seen:  # by a link, which may even lead back
            folders.clear()
            continue
        seen.add(place)
        folders[:] = sorted(name for name in folders if is_data(name))
        yield from (Path(inside, name) for name in files if is_data(name))


def is_data(name: str) -> bool:
    """Whether a file or folder is neither hidden nor made by the system."""
    return not name.startswith('.') and name not in _OF_TOOLS


def images_below(folder: str | Path) -> Iterator[Path]:
    """The files of :func:`files_below` that have the ending of an image."""
    return (path for path in files_below(folder) if path.suffix.lower() in IMAGE_ENDINGS)


def what_is_wrong(path: str) -> str | None:
    """The reason why an image file cannot be read completely, or None.

    JPEG and PNG end in a marker that occurs earlier only in a JPEG's embedded preview, and
    PNG has checksums. Only images that these do not prove complete, and other formats, are
    decoded.
    """
    try:
        size = os.path.getsize(path)
        with open(path, 'rb') as file:
            head = file.read(24)
            pixels = _start_of_scan(file) if head.startswith(b'\xff\xd8') else 0
            file.seek(max(pixels, size - _TAIL))
            tail = file.read()
    except FileNotFoundError:
        return 'does not exist'
    except OSError as error:
        return f'cannot be read: {error.strerror}'
    if not head:
        return 'is empty'
    if head.startswith(b'\xff\xd8') and b'\xff\xd9' in tail:
        return None
    if pixels and not _has_end(path, pixels):
        return 'is truncated: it has no end of image'
    if head.startswith(_PNG):
        fault = _too_large(*struct.unpack('>II', head[16:24].ljust(8, b'\0')))
        if fault or b'IEND\xaeB`\x82' in tail and _has_right_sums(path):
            return fault
    return _decode(path)


def _start_of_scan(file: BinaryIO) -> int:
    """The offset at which a JPEG's pixels begin; the file's length if none do."""
    at = 2
    while True:
        file.seek(at)
        mark = file.read(4).ljust(4, b'\0')
        if mark[0] != 0xFF:
            return file.seek(0, os.SEEK_END)
        if mark[1] == _SCAN:
            return at
        if mark[1] == 0xFF or mark[1] in _BARE_MARKERS:
            at += 1 if mark[1] == 0xFF else 2
        else:
            at += 2 + int.from_bytes(mark[2:], 'big')


def _has_end(path: str, pixels: int) -> bool:
    """Whether a JPEG's end is anywhere behind its start of scan.

    Decoders take the zeros that an interrupted copy leaves for pixels.
    """
    with open(path, 'rb') as file:
        file.seek(pixels)
        return b'\xff\xd9' in file.read()


def _has_right_sums(path: str) -> bool:
    """Whether the checksums of a PNG's chunks are right."""
    with open(path, 'rb') as file:
        file.seek(len(_PNG))
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack('>I4s', head)
            data = file.read(length)
            if file.read(4) != struct.pack('>I', zlib.crc32(data, zlib.crc32(kind))):
                return False
            if kind == b'IEND':
                return True
    return False


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
    except (Image.UnidentifiedImageError, Image.DecompressionBombError):
        pass  # OpenCV reads formats and sizes that Pillow does not
    except (OSError, SyntaxError, ValueError) as error:
        return f'is truncated or damaged: {error}'
    try:
        found = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        found = None
    return 'is damaged, or of a kind that OpenCV does not read' if found is None else None


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
