"""YOLO's label files: a class and normalised numbers in each line."""

from pathlib import Path

from ....utils.errors import UserError
from ..annotations import is_number
from .to_coco import Box

# Tools round: boxes are clipped that reach beyond the image by at most this share of it.
ROUNDING = 0.01


def count_key_points(config: dict) -> int:
    """The number of values for key points behind each box.

    Raises:
        UserError: kpt_shape is no pair of numbers.
    """
    shape = config.get('kpt_shape')
    if not shape:
        return 0
    if not isinstance(shape, list) or len(shape) != 2 or not all(str(v).isdecimal() for v in shape):
        raise UserError(f'data.yaml: kpt_shape={shape}, number and dimensions are needed')
    return int(shape[0]) * int(shape[1])


def read_labels(path: Path, classes: list[str], size: tuple[int, int], points: int) -> list[Box]:
    """The boxes of a label file.

    Args:
        size: width and height of the image, pixels.
        points: see :func:`count_key_points`.

    Raises:
        UserError: names the line and what is wrong in it.
    """
    boxes = []
    try:
        text = path.read_bytes().decode('utf-8-sig')
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f'{path} cannot be read: {error}') from error
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        where = f'{path}, line {number}'
        try:
            kind, *values = map(float, line.replace('_', '?').split())
        except ValueError as error:
            raise UserError(f'{where}: {line.strip()!r:.80} are not numbers') from error
        if kind not in range(len(classes)):
            raise UserError(f'{where}: class {kind:g}, but data.yaml has {len(classes)}, from 0 on')
        if points:
            if len(values) != 4 + points:
                raise UserError(
                    f'{where}: {len(values)} numbers behind the class, a box and the key points '
                    f'of kpt_shape are {4 + points}'
                )
            values = values[:4]
        x1, y1, x2, y2 = _edges(where, values)
        low, high = min(x1, y1), max(x2, y2)
        if not (is_number(low) and is_number(high) and low >= -ROUNDING and high <= 1 + ROUNDING):
            raise UserError(
                f'{where}: the box reaches from {low:.4g} to {high:.4g}, normalised '
                'coordinates are 0 to 1'
            )
        x1, y1, x2, y2 = (min(max(value, 0.0), 1.0) for value in (x1, y1, x2, y2))
        width, height = size
        box = (x1 * width, y1 * height, (x2 - x1) * width, (y2 - y1) * height)
        boxes.append((classes[int(kind)], *box, {}))
    return boxes


def _edges(where: str, values: list[float]) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a box, or of the box around a polygon."""
    if len(values) == 4:
        x, y, width, height = values
        if width < 0 or height < 0:
            raise UserError(f'{where}: the box has the size {width:g} x {height:g}')
        return x - width / 2, y - height / 2, x + width / 2, y + height / 2
    if len(values) >= 6 and len(values) % 2 == 0:
        return min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])
    raise UserError(
        f'{where}: {len(values)} numbers behind the class are neither a box (4) nor a '
        'polygon (6, 8, ...)'
    )
