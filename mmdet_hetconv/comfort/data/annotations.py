"""What the readers of COCO and VOC annotation files return.

mmdet's readers assume correct files: a wrong one raises a KeyError that names no file, or
loses or relabels boxes silently.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...utils.errors import UserError

# Larger coordinates are mistakes; as 32-bit numbers they would overflow.
_LARGEST = 1e9
# COCO's mAP counts at most so many detections in an image.
MOST_COUNTED = 100


@dataclass
class Content:
    """What is annotated in one image.

    Attributes:
        size: width and height in pixels by the file; None if it has none.
        classes: of all boxes.
        learnable: classes of the boxes that are trained on: no crowds, no difficult
            objects, no unusable boxes.
        boxes: number of boxes of each class and place.
    """

    size: tuple[float, float] | None
    classes: set[str] = field(default_factory=set)
    learnable: set[str] = field(default_factory=set)
    boxes: Counter = field(default_factory=Counter)


@dataclass(frozen=True)
class Annotations:
    """The content of an annotation file that has been checked.

    Attributes:
        path: the file.
        classes: in the order in which mmdet numbers them.
        images: names of the image files, relative to their folder.
        boxes: number of boxes.
        without_mask: number of boxes without segmentation.
        unusable: number of boxes that are smaller than a pixel or outside of their
            image; nothing is learnt from them.
        ids: ids of the images in a COCO file, in the order of `images`.
        contents: annotations of each image, in the order of `images`.
        warnings: sentences on what is valid, but usually a mistake.
        entries: the parsed COCO file; empty for VOC.
        needs_own_reader: mmdet cannot read the file, the readers here can.
    """

    path: Path
    classes: tuple[str, ...]
    images: tuple[str, ...]
    boxes: int
    without_mask: int
    unusable: int = 0
    ids: tuple[int | str, ...] = ()
    contents: tuple[Content, ...] = ()
    warnings: tuple[str, ...] = ()
    entries: dict[str, Any] = field(default_factory=dict, repr=False)
    needs_own_reader: bool = False


def warn_of_repeats(
    contents: Sequence[Content], images: Sequence[str], named_by: Path
) -> Iterator[str]:
    """Warn of images and boxes that occur twice, and of more boxes than mAP counts."""
    twice = [name for name, count in Counter(images).items() if count > 1]
    if twice:
        yield f'{named_by}: {len(twice)} images are there twice, {twice[0]} first'
    repeated = [content.boxes.total() - len(content.boxes) for content in contents]
    if any(repeated):
        first = next(image for image, count in zip(images, repeated) if count)
        yield (
            f'{named_by}: {sum(repeated)} boxes are there twice, with class and place, those of '
            f'{first} first: of two only one can be found'
        )
    crowded = sum(content.boxes.total() > MOST_COUNTED for content in contents)
    if crowded:
        yield (
            f"{named_by}: {crowded} images have more than {MOST_COUNTED} boxes, of which COCO's "
            f'mAP counts {MOST_COUNTED}'
        )


def read_file(path: Path) -> bytes:
    """Read a file that must not be empty.

    Raises:
        UserError: it is missing, empty or cannot be read.
    """
    try:
        text = path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f'annotation file {path} does not exist') from error
    except OSError as error:
        raise UserError(f'annotation file {path} cannot be read: {error.strerror}') from error
    except ValueError as error:  # of a name with a zero byte
        raise UserError(f'annotation file {str(path)!r} cannot be read: {error}') from error
    if not text.strip():
        raise UserError(f'annotation file {path} is empty')
    return text


def read_text(path: Path) -> str:
    """The text of a file, without a byte-order mark.

    Raises:
        UserError: see :func:`read_file`; it is not UTF-8.
    """
    try:
        return read_file(path).decode('utf-8-sig')
    except UnicodeDecodeError as error:
        raise UserError(f'{path} is not text in UTF-8: {error.reason} at {error.start}') from error


def is_number(value) -> bool:
    """Whether a value is a finite number of plausible size."""
    # abs() of an int of any length, which math.isfinite() cannot take.
    return isinstance(value, int | float) and abs(value) <= _LARGEST
