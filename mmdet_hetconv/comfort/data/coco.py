"""Reader of COCO annotation files that checks every entry."""

import codecs
import json
from pathlib import Path

from ...utils.errors import UserError
from ...utils.images import MOST_PIXELS
from .annotations import Annotations, Content, is_number, read_file, warn_of_repeats

# If more boxes than this share end outside of their image, they are x1 y1 x2 y2, not rounded.
_CORNERS_SHARE = 0.5


def read_coco(path: str | Path, labelled: bool = True, strict: bool = True) -> Annotations:
    """Read and check a COCO annotation file, see :func:`check_coco`.

    Args:
        strict: whether to refuse what mmdet cannot read, too.
    """
    content, marked = load_json(Path(path))
    return check_coco(Path(path), content, labelled, strict, marked)


def check_coco(
    path: Path, content: dict, labelled: bool = True, strict: bool = True, marked: bool = False
) -> Annotations:
    """Check the parsed content of a COCO annotation file.

    Args:
        path: the file.
        labelled: whether annotations are required; a list of images such as COCO's
            test-dev has none.
        strict: whether to refuse what mmdet cannot read, too.
        marked: whether the file starts with a byte-order mark.

    Classes keep the order of the file's categories: CocoDataset numbers them in this
    order, whatever the order of its own class list.

    Raises:
        UserError: names the file and the first entry that is wrong.
    """
    images, categories = (_entries(path, content, key) for key in ('images', 'categories'))
    boxes = []
    if labelled or content.get('annotations'):
        boxes = _entries(path, content, 'annotations')
    _unique(path, 'images', images)
    category_ids = _unique(path, 'categories', categories)
    # mmdet and pycocotools do arithmetic with the ids of categories.
    text = next((number for number in category_ids if isinstance(number, str)), None)
    if strict and text is not None:
        raise UserError(f'{path}: categories holds the id {text!r:.80}, a whole number is needed')
    if strict and marked:
        raise UserError(f'annotation file {path} starts with a byte-order mark')
    _unique(path, 'annotations', boxes)
    for image in images:
        _check_image(path, image)
    by_id = {image['id']: image for image in images}
    classes = tuple(category.get('name') for category in categories)
    for name in classes:
        if not _is_text(name):
            raise UserError(f'{path}: a category has the name {name!r:.80}')
    for name in classes:
        if [other.strip() for other in classes].count(name.strip()) > 1:
            raise UserError(f'{path}: two categories have the name {name!r}')
    names = {category['id']: category['name'] for category in categories}
    contents = {
        number: Content((image['width'], image['height'])) for number, image in by_id.items()
    }
    unusable = beyond = 0
    for box in boxes:
        _check_box(path, box, by_id, category_ids)
        usable = _is_usable(box, by_id[box['image_id']])
        unusable += not usable
        beyond += _ends_outside(box, by_id[box['image_id']])
        found, name = contents[box['image_id']], names[box['category_id']]
        found.classes.add(name)
        found.boxes[(name, *box['bbox'])] += 1
        if usable and not box['iscrowd'] and not box.get('ignore'):
            found.learnable.add(name)
    files = tuple(image['file_name'] for image in images)
    warnings = [*warn_of_repeats([*contents.values()], files, path)]
    if beyond > _CORNERS_SHARE * len(boxes):
        warnings.append(
            f'{path}: {beyond} of {len(boxes)} boxes end outside of their image; a bbox is x, y, '
            'width, height: are these x1, y1, x2, y2?'
        )
    return Annotations(
        path,
        classes,
        files,
        len(boxes),
        sum(not box.get('segmentation') for box in boxes),
        unusable,
        tuple(image['id'] for image in images),
        tuple(contents.values()),
        tuple(warnings),
        content,
        marked or text is not None,
    )


def load_json(path: Path) -> tuple[dict, bool]:
    """Parse a COCO file; returns also whether it starts with a byte-order mark.

    Raises:
        UserError: it is no JSON, or no object.
    """
    text = read_file(path)
    try:
        content = json.loads(text.decode('utf-8-sig'))
    except (ValueError, RecursionError) as error:
        raise UserError(f'annotation file {path} is not valid JSON: {error}') from error
    if not isinstance(content, dict):
        raise UserError(
            f'annotation file {path} holds a {type(content).__name__}, '
            'COCO annotations are an object'
        )
    return content, text.startswith(codecs.BOM_UTF8)


def _entries(path: Path, content: dict, key: str) -> list[dict]:
    entries = content.get(key)
    if not isinstance(entries, list) or not entries:
        raise UserError(f'annotation file {path} has no {key}')
    for entry in entries:
        if not isinstance(entry, dict) or 'id' not in entry:
            raise UserError(f'{path}: {key} holds {entry!r:.80}, without id')
    return entries


def _unique(path: Path, key: str, entries: list[dict]) -> set:
    ids = set()
    for entry in entries:
        number = entry['id']
        if not isinstance(number, int | str):
            raise UserError(f'{path}: {key} holds the id {number!r:.80}')
        if number in ids:
            raise UserError(f'{path}: {key} holds the id {number!r:.80} twice')
        ids.add(number)
    return ids


def _check_image(path: Path, image: dict) -> None:
    number = f'image {image["id"]!r:.80}'
    name = image.get('file_name')
    if not _is_text(name):
        raise UserError(
            f'{path}: {number} has no file_name'
            if name is None
            else f'{path}: {number} has file_name={name!r:.80}'
        )
    for key in ('width', 'height'):
        if not is_number(image.get(key)) or image[key] < 1:
            raise UserError(f'{path}: {number} has {key}={image.get(key)!r:.80}')
    if image['width'] * image['height'] > MOST_PIXELS:
        raise UserError(
            f'{path}: {number} has {image["width"]} x {image["height"]} '
            'pixels, more than OpenCV reads'
        )


def _check_box(path: Path, box: dict, images: dict, categories: set) -> None:
    number = f'annotation {box["id"]!r:.80}'
    # Compared as they are: a list cannot be in a set.
    for key, known in (('image_id', images), ('category_id', categories)):
        value = box.get(key)
        if not isinstance(value, int | str) or value not in known:
            raise UserError(
                f'{path}: {number} has {key}={value!r:.80}, which the file does not know'
            )
    bbox = box.get('bbox')
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(is_number(value) for value in bbox):
        raise UserError(f'{path}: {number} has bbox={bbox!r:.80}, four finite numbers are needed')
    if bbox[2] < 0 or bbox[3] < 0:
        raise UserError(f'{path}: {number} has bbox={bbox!r:.80}, of negative width or height')
    # mmdet and pycocotools read both of every annotation.
    for key in ('area', 'iscrowd'):
        if not is_number(box.get(key)):
            raise UserError(f'{path}: {number} has {key}={box.get(key)!r:.80}, a number is needed')
    if not _is_mask(box.get('segmentation') or []):
        raise UserError(
            f'{path}: {number} has segmentation={box["segmentation"]!r:.80}, '
            'polygons or run lengths are needed'
        )


def _is_mask(value) -> bool:
    """Whether a segmentation is a list of polygons, or run lengths with a size."""
    if isinstance(value, dict):
        return (
            isinstance(value.get('counts'), list | str)
            and isinstance(value.get('size'), list)
            and len(value['size']) == 2
            and all(is_number(number) for number in value['size'])
        )
    return isinstance(value, list) and all(
        isinstance(polygon, list) and all(map(is_number, polygon)) for polygon in value
    )


def _is_usable(box: dict, image: dict) -> bool:
    """Whether CocoDataset keeps a box."""
    x, y, width, height = box['bbox']
    inside = min(x + width, image['width']) > max(x, 0) and min(y + height, image['height']) > max(
        y, 0
    )
    return inside and width >= 1 and height >= 1 and box['area'] > 0


def _ends_outside(box: dict, image: dict) -> bool:
    """Whether a box ends outside of its image by more than a rounding error."""
    x, y, width, height = box['bbox']
    return x + width > image['width'] + 2 or y + height > image['height'] + 2


def _is_text(value) -> bool:
    """Whether a value can be a file name and can be printed."""
    if not isinstance(value, str) or not value or '\0' in value:
        return False
    return not any('\ud800' <= letter <= '\udfff' for letter in value)
