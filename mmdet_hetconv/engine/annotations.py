"""Annotation files of the COCO and VOC layouts, read with open eyes.

mmdet's own readers assume a correct file: they end in a KeyError that names
no file, or silently drop or relabel boxes.
"""

import json
import math
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import UserError

# Larger coordinates are mistakes, and overflow as 32-bit numbers.
_LARGEST = 1e9
# OpenCV reads no larger image.
MOST_PIXELS = 2**30


@dataclass
class Content:
    """What is annotated in one image.

    Attributes:
        size: width and height in pixels, as the file says; None if it is
            silent.
        classes: of all boxes.
        learnt: of the boxes that a detector learns to find: not of crowds,
            of difficult objects, and of what is `unusable`.
    """

    size: tuple[float, float] | None
    classes: set[str] = field(default_factory=set)
    learnt: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Annotations:
    """What one annotation file says.

    Attributes:
        path: the file.
        classes: in the order in which mmdet numbers them.
        images: names of the image files, relative to their folder.
        ids: of the images, in that order; the COCO layout has them.
        boxes: how many boxes there are.
        has_masks: whether at least one box has a segmentation.
        unusable: how many boxes nothing is learnt from, since they are
            smaller than a pixel or outside of their image.
        contents: of the images, in their order.
    """

    path: Path
    classes: tuple[str, ...]
    images: tuple[str, ...]
    boxes: int
    has_masks: bool
    unusable: int = 0
    ids: tuple[int | str, ...] = ()
    contents: tuple[Content, ...] = ()


def read_coco(path: str | Path, labelled: bool = True) -> Annotations:
    """Read and check a COCO annotation file.

    Args:
        path: the file.
        labelled: whether annotations are needed. A list of images to detect
            in, as COCO's test-dev, has none.

    The classes come in the order of the file's categories, that of their ids
    in every file that is sorted: CocoDataset numbers them so, whatever the
    order of its own class list.

    Raises:
        UserError: names the file and the first entry that is wrong.
    """
    path = Path(path)
    content = _load_json(path)
    images, categories = (
        _entries(path, content, key) for key in ('images', 'categories')
    )
    boxes = []
    if labelled or content.get('annotations'):
        boxes = _entries(path, content, 'annotations')
    _unique(path, 'images', images)
    category_ids = _unique(path, 'categories', categories)
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
        number: Content((image['width'], image['height']))
        for number, image in by_id.items()
    }
    unusable = 0
    for box in boxes:
        _check_box(path, box, by_id, category_ids)
        usable = _is_usable(box, by_id[box['image_id']])
        unusable += not usable
        content, name = contents[box['image_id']], names[box['category_id']]
        content.classes.add(name)
        if usable and not box['iscrowd'] and not box.get('ignore'):
            content.learnt.add(name)
    return Annotations(
        path,
        classes,
        tuple(image['file_name'] for image in images),
        len(boxes),
        any(box.get('segmentation') for box in boxes),
        unusable,
        tuple(image['id'] for image in images),
        tuple(contents.values()),
    )


def _load_json(path: Path) -> dict:
    text = _read(path)
    try:
        # As it is opened by pycocotools: UTF-8, without a byte-order mark.
        content = json.loads(text.decode())
    except (ValueError, RecursionError) as error:
        raise UserError(
            f'annotation file {path} is not valid JSON: {error}'
        ) from error
    if not isinstance(content, dict):
        raise UserError(
            f'annotation file {path} holds a {type(content).__name__}, '
            'COCO annotations are an object'
        )
    return content


def _read(path: Path) -> bytes:
    try:
        text = path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f'annotation file {path} does not exist') from error
    except OSError as error:
        raise UserError(
            f'annotation file {path} cannot be read: {error.strerror}'
        ) from error
    except ValueError as error:  # of a name with a zero byte
        raise UserError(
            f'annotation file {str(path)!r} cannot be read: {error}'
        ) from error
    if not text.strip():
        raise UserError(f'annotation file {path} is empty')
    return text


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
        if not _is_number(image.get(key)) or image[key] < 1:
            raise UserError(
                f'{path}: {number} has {key}={image.get(key)!r:.80}'
            )
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
                f'{path}: {number} has {key}={value!r:.80}, '
                'which the file does not know'
            )
    bbox = box.get('bbox')
    if (
        not isinstance(bbox, list)
        or len(bbox) != 4
        or not all(_is_number(value) for value in bbox)
    ):
        raise UserError(
            f'{path}: {number} has bbox={bbox!r:.80}, '
            'four finite numbers are needed'
        )
    if bbox[2] < 0 or bbox[3] < 0:
        raise UserError(
            f'{path}: {number} has bbox={bbox!r:.80}, of negative width or '
            'height'
        )
    # mmdet and pycocotools read both of every annotation.
    for key in ('area', 'iscrowd'):
        if not _is_number(box.get(key)):
            raise UserError(
                f'{path}: {number} has '
                f'{key}={box.get(key)!r:.80}, a number is needed'
            )
    if not _is_mask(box.get('segmentation') or []):
        raise UserError(
            f'{path}: {number} has segmentation={box["segmentation"]!r:.80}, '
            'polygons or run lengths are needed'
        )


def _is_mask(value) -> bool:
    """Whether this is a list of polygons, or run lengths of a size."""
    if isinstance(value, dict):
        return (
            isinstance(value.get('counts'), list | str)
            and isinstance(value.get('size'), list)
            and len(value['size']) == 2
            and all(_is_number(number) for number in value['size'])
        )
    return isinstance(value, list) and all(
        isinstance(polygon, list) and all(map(_is_number, polygon))
        for polygon in value
    )


def _is_usable(box: dict, image: dict) -> bool:
    """Whether CocoDataset keeps a box."""
    x, y, width, height = box['bbox']
    inside = min(x + width, image['width']) > max(x, 0) and min(
        y + height, image['height']
    ) > max(y, 0)
    return inside and width >= 1 and height >= 1 and box['area'] > 0


def _is_number(value) -> bool:
    # abs() of an int of any length, which math.isfinite() cannot take.
    return isinstance(value, int | float) and abs(value) <= _LARGEST


def _is_text(value) -> bool:
    """Whether a name can be one of a file, and be printed."""
    if not isinstance(value, str) or not value or '\0' in value:
        return False
    return not any('\ud800' <= letter <= '\udfff' for letter in value)


def read_voc(
    list_file: str | Path,
    xml_dir: str | Path,
    image_dir: str | Path = '',
    name_of: Callable[[str], str] = '{}.jpg'.format,
) -> Annotations:
    """Read and check a VOC image list and the XML file of every image.

    The classes come sorted by name, as VOC's own twenty are.

    Args:
        list_file: the list.
        xml_dir: folder of the XML files.
        image_dir: put before the images' names.
        name_of: from a line of the list to the image's name.

    Raises:
        UserError: names the file and what is wrong in it.
    """
    list_file, xml_dir = Path(list_file), Path(xml_dir)
    try:
        text = _read(list_file).decode()
    except UnicodeDecodeError as error:
        raise UserError(f'image list {list_file} is not a text') from error
    # As mmengine splits it: other ends of lines belong to a name.
    ids = [line.rstrip('\r') for line in text.removesuffix('\n').split('\n')]
    contents = []
    names, unusable = [], 0
    for number, image_id in enumerate(ids, 1):
        if not image_id.strip():
            raise UserError(f'image list {list_file}: line {number} is empty')
        path = xml_dir / f'{image_id}.xml'
        root = _parse_xml(path)
        content = Content(_size(path, root))
        for name, usable, difficult in _objects(path, root, content.size):
            names.append(name)
            unusable += not usable
            content.classes.add(name)
            if usable and not difficult:
                content.learnt.add(name)
        contents.append(content)
    if not names:
        raise UserError(f'image list {list_file}: no image has an object')
    return Annotations(
        list_file,
        tuple(sorted(set(names))),
        tuple(str(Path(image_dir) / name_of(image_id)) for image_id in ids),
        len(names),
        False,
        unusable,
        contents=tuple(contents),
    )


def _parse_xml(path: Path) -> ET.Element:
    try:
        return ET.fromstring(_read(path))
    except (ET.ParseError, ValueError, LookupError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f'annotation file {path} is not valid XML: {error}'
        ) from error


def _size(path: Path, root: ET.Element) -> tuple[int, int] | None:
    """Width and height of the image; None if the file does not say."""
    if root.find('size') is None:
        return None
    width, height = (_side(path, root, key) for key in ('width', 'height'))
    if width * height > MOST_PIXELS:
        raise UserError(
            f'{path}: size has {width} x {height} pixels, more than OpenCV '
            'reads'
        )
    return width, height


def _objects(
    path: Path, root: ET.Element, size: tuple[int, int] | None
) -> Iterable[tuple[str, bool, bool]]:
    """The objects in one XML file, checked.

    Yields:
        the class name, whether the box is at least a pixel wide and high,
        and whether the object is marked as difficult.
    """
    for thing in root.findall('object'):
        name = thing.findtext('name')
        if not name:
            raise UserError(f'{path}: an object has no name')
        if name != name.strip():
            # XMLDataset takes it for another class than the bare name.
            raise UserError(
                f'{path}: the name {name!r:.80} of an object has white space '
                'around it'
            )
        box = {}
        for key in ('xmin', 'ymin', 'xmax', 'ymax'):
            text = thing.findtext(f'bndbox/{key}', '')
            box[key] = _to_float(text)
            if not _is_number(box[key]):
                raise UserError(
                    f'{path}: object {name!r:.80} has {key}={text!r:.80}'
                )
        _check_voc_box(path, name, box, size)
        difficult = thing.findtext('difficult', '0')
        if difficult not in ('0', '1'):
            raise UserError(
                f'{path}: object {name!r:.80} has difficult={difficult!r:.80}'
            )
        yield (
            name,
            min(box['xmax'] - box['xmin'], box['ymax'] - box['ymin']) >= 1,
            difficult == '1',
        )


def _side(path: Path, root: ET.Element, key: str) -> int:
    text = root.findtext(f'size/{key}', '').strip()
    if not text.isdecimal() or len(text) > 9 or int(text) < 1:
        raise UserError(f'{path}: size has {key}={text!r:.80}')
    return int(text)


def _check_voc_box(
    path: Path, name: str, box: dict[str, float], size: tuple[int, int] | None
) -> None:
    """Refuse what XMLDataset keeps and no detector can learn from.

    It clips a box outside of the image to one without area.
    """
    for low, high in (('xmin', 'xmax'), ('ymin', 'ymax')):
        if box[high] < box[low]:
            raise UserError(
                f'{path}: object {name!r:.80} has {high}={box[high]:g} below '
                f'{low}={box[low]:g}'
            )
    # VOC counts pixels from 1.
    if (
        min(box['xmax'], box['ymax']) < 1
        or size
        and (box['xmin'] > size[0] or box['ymin'] > size[1])
    ):
        raise UserError(
            f'{path}: object {name!r:.80} is outside of the image, at '
            f'{", ".join(f"{key}={value:g}" for key, value in box.items())}'
        )


def _to_float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
