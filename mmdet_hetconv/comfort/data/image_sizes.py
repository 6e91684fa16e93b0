"""Compare the sizes of images with those in their annotations.

Boxes are in pixels of the image that the annotation tool showed. mmdet rotates an image by
its EXIF orientation and keeps the boxes: if the tool did not, all boxes are misplaced.
"""

import logging
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image
from PIL.TiffImagePlugin import IMAGELENGTH, IMAGEWIDTH, TiffImageFile

from ...utils.announce import announce
from ...utils.errors import UserError
from ...utils.images import MOST_PIXELS
from ...workflow.config.config_parts import type_name

_ORIENTATION = 0x0112  # EXIF tag; 5 to 8 exchange width and height
# Tools round by so much; boxes are then hardly misplaced.
_ROUNDING_PX = 2
# What Pillow raises for a file that is no image.
UNREADABLE = (OSError, SyntaxError, ValueError, KeyError, Image.DecompressionBombError)
_THREADS = 16
# Pillow's limit would refuse images that OpenCV reads.
Image.MAX_IMAGE_PIXELS = MOST_PIXELS


def turns_images(pipeline: Sequence[dict]) -> bool:
    """Whether a pipeline rotates images by their EXIF orientation."""
    for step in pipeline:
        if type_name(step).startswith('LoadImage'):
            flag = step.get('color_type', 'color')
            return flag != 'unchanged' and 'ignore_orientation' not in flag
    return True


def read_head(path: str | Path) -> tuple[tuple[int, int], bool]:
    """Stored width and height of an image, and whether EXIF exchanges them.

    Raises one of UNREADABLE, also for formats that Pillow does not know.
    """
    with Image.open(path) as image:
        on_side = image.getexif().get(_ORIENTATION, 1) >= 5
        if isinstance(image, TiffImageFile):
            # OpenCV always rotates TIFF files; so does Pillow, depending on its version.
            width, height = image.tag_v2[IMAGEWIDTH], image.tag_v2[IMAGELENGTH]
            return ((height, width) if on_side else (width, height)), False
        return image.size, on_side


def size_of(path: Path) -> tuple[int, int]:
    """Width and height of an image as viewers show it, read from its header.

    Raises:
        UserError: the file is no image.
    """
    try:
        (width, height), on_side = read_head(path)
    except UNREADABLE as error:
        raise UserError(f'image {path} cannot be read: {error}') from error
    return (height, width) if on_side else (width, height)


def _known_head(path: str) -> tuple[tuple[int, int] | None, bool]:
    """As :func:`read_head`, with None for a size that cannot be read."""
    try:
        return read_head(path)
    except UNREADABLE:
        return None, False


def check_sizes(declared: Iterable[tuple[str, tuple[float, float], bool]], named_by: Path) -> None:
    """Compare images with the sizes in their annotations.

    Images that differ by up to two pixels are counted in one warning.

    Args:
        declared: path of each image, its width and height by the annotations, and whether
            the pipeline rotates it by its EXIF orientation.
        named_by: the annotation file, for the message.

    Raises:
        UserError: an image has another size.
    """
    declared = list(declared)
    rounded = []
    with ThreadPoolExecutor(_THREADS) as pool:
        heads = pool.map(_known_head, (path for path, *_ in declared))
        for (path, size, turned), (bitmap, lies) in zip(declared, heads):
            if bitmap is None:
                continue
            on_side = turned and lies
            loaded = bitmap[::-1] if on_side else bitmap
            try:
                check_size(path, size, loaded, named_by, on_side)
            except UserError:
                pool.shutdown(cancel_futures=True)
                raise
            if tuple(size) != loaded:
                rounded.append(path)
    if rounded:
        announce(
            f'{named_by}: {len(rounded)} images differ from their size there '
            f'by up to {_ROUNDING_PX} pixels, {rounded[0]} first',
            logging.WARNING,
        )


def check_size(
    path: str,
    declared: tuple[float, float],
    loaded: tuple[int, int],
    named_by: Path,
    on_side: bool = False,
) -> None:
    """Compare one image's width and height with its annotations'.

    Args:
        on_side: whether its EXIF orientation exchanged the two.

    Raises:
        UserError: they differ by more than two pixels.
    """
    if max(abs(a - b) for a, b in zip(declared, loaded)) <= _ROUNDING_PX:
        return
    turned = ', turned by its EXIF orientation' if on_side else ''
    raise UserError(
        f'image {path} is loaded with {loaded[0]} x {loaded[1]} pixels'
        f'{turned}, but {named_by} has {declared[0]:g} x {declared[1]:g}: its '
        'boxes would be in other places'
    )
