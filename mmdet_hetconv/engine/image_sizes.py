"""Whether images have the size that their annotations were made for.

Boxes are in the pixels of the image as the annotation tool saw it. mmdet
reads the image, turned as its EXIF orientation says, and takes the boxes as
they are: where the two differ, it trains and evaluates on wrong places.
"""

import logging
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from ..errors import UserError
from .datasets import type_name
from .processes import announce

_ORIENTATION = 0x0112  # the EXIF tag; 5 to 8 lay an image on its side
# What a tool may round: boxes are as good as right then.
_ROUNDING_PX = 2
_THREADS = 16


def turns_images(pipeline: Sequence[dict]) -> bool:
    """Whether a pipeline loads images turned by their EXIF orientation."""
    for step in pipeline:
        if type_name(step).startswith('LoadImage'):
            flag = step.get('color_type', 'color')
            return flag != 'unchanged' and 'ignore_orientation' not in flag
    return True


def _read_head(path: str) -> tuple[tuple[int, int] | None, int]:
    """Width and height of the bitmap, and how it is to be turned.

    The size is None for a format that Pillow does not know.
    """
    try:
        with Image.open(path) as image:
            return image.size, image.getexif().get(_ORIENTATION, 1)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None, 1


def check_sizes(
    declared: Iterable[tuple[str, tuple[float, float]]],
    turned: bool,
    named_by: Path,
) -> None:
    """Compare images with the sizes in their annotations.

    A difference of up to two pixels is told once, with its number of images.

    Args:
        declared: path, and width and height by the annotations.
        turned: whether the pipeline turns images by their EXIF orientation.
        named_by: the annotation file, for the message.

    Raises:
        UserError: an image has another size.
    """
    declared = list(declared)
    rounded = []
    with ThreadPoolExecutor(_THREADS) as pool:
        heads = pool.map(_read_head, (path for path, _ in declared))
        for (path, size), (bitmap, orientation) in zip(declared, heads):
            if bitmap is None:
                continue
            on_side = turned and orientation >= 5
            loaded = bitmap[::-1] if on_side else bitmap
            off = max(abs(a - b) for a, b in zip(size, loaded))
            if off > _ROUNDING_PX:
                pool.shutdown(cancel_futures=True)
                raise UserError(
                    _other_size(path, size, loaded, on_side, named_by)
                )
            if off:
                rounded.append(path)
    if rounded:
        announce(
            f'{named_by}: {len(rounded)} images differ from their size there '
            f'by up to {_ROUNDING_PX} pixels, {rounded[0]} first',
            logging.WARNING,
        )


def _other_size(path, size, loaded, on_side: bool, named_by) -> str:
    turned = ', turned by its EXIF orientation' if on_side else ''
    return (
        f'image {path} is loaded with {loaded[0]} x {loaded[1]} pixels'
        f'{turned}, but {named_by} has {size[0]:g} x {size[1]:g}: its boxes '
        'would be in other places'
    )
