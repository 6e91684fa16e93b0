"""What annotation files say, whatever their layout.

mmdet's own readers assume a correct file: they end in a KeyError that names
no file, or silently drop or relabel boxes.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...utils.errors import UserError

# Larger coordinates are mistakes, and overflow as 32-bit numbers.
_LARGEST = 1e9
# Detections of an image that COCO's mAP takes.
MOST_COUNTED = 100


@dataclass
class Content:
    """What is annotated in one image.

    Attributes:
        size: width and height in pixels, as the file says; None if it is
            silent.
        classes: of all boxes.
        learnable: of the boxes that a detector learns to find: not of crowds,
            of difficult objects, and of what is `unusable`.
        boxes: how often there is which class at which place.
    """

    size: tuple[float, float] | None
    classes: set[str] = field(default_factory=set)
    learnable: set[str] = field(default_factory=set)
    boxes: Counter = field(default_factory=Counter)


@dataclass(frozen=True)
class Annotations:
    """What one annotation file says.

    Attributes:
        path: the file.
        classes: in the order in which mmdet numbers them.
        images: names of the image files, relative to their folder.
        ids: of the images, in that order; the COCO layout has them.
        boxes: how many boxes there are.
        without_mask: how many boxes have no segmentation.
        unusable: how many boxes nothing is learnt from, since they are
            smaller than a pixel or outside of their image.
        contents: of the images, in their order.
        warnings: what can be meant so, and is more often a mistake; sentences.
        needs_own_reader: whether only the readers here take the file, and mmdet's do not.
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
    needs_own_reader: bool = False


def warn_of_repeats(
    contents: Sequence[Content], images: Sequence[str], named_by: Path
) -> Iterator[str]:
    """Sentences on what is there twice, or is too much for a metric."""
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
    """The content of an annotation file.

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
    """Whether this is a finite number, and no mistake."""
    # abs() of an int of any length, which math.isfinite() cannot take.
    return isinstance(value, int | float) and abs(value) <= _LARGEST
