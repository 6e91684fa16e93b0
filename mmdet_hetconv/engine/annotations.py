"""Annotation files of the COCO and VOC layouts, read with open eyes.

mmdet's own readers assume a correct file: they end in a KeyError that names
no file, or silently drop or relabel boxes.
"""

import json
import math
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .errors import UserError


@dataclass(frozen=True)
class Annotations:
    """What one annotation file says.

    Attributes:
        path: the file.
        classes: in the order in which mmdet numbers them.
        images: names of the image files, relative to their folder.
        boxes: how many boxes there are.
        has_masks: whether at least one box has a segmentation.
    """

    path: Path
    classes: tuple[str, ...]
    images: tuple[str, ...]
    boxes: int
    has_masks: bool


def read_coco(path: str | Path) -> Annotations:
    """Read and check a COCO annotation file.

    The classes come in the order of the file's categories, that of their ids
    in every file that is sorted: CocoDataset numbers them so, whatever the
    order of its own class list.

    Raises:
        UserError: names the file and the first entry that is wrong.
    """
    path = Path(path)
    content = _load_json(path)
    images, boxes, categories = (
        _entries(path, content, key)
        for key in ('images', 'annotations', 'categories')
    )
    image_ids = _unique(path, 'images', images)
    category_ids = _unique(path, 'categories', categories)
    _unique(path, 'annotations', boxes)
    for image in images:
        _check_image(path, image)
    for box in boxes:
        _check_box(path, box, image_ids, category_ids)
    classes = tuple(str(category.get('name')) for category in categories)
    for name in classes:
        if classes.count(name) > 1:
            raise UserError(f'{path}: two categories have the name {name!r}')
    return Annotations(
        path,
        classes,
        tuple(image['file_name'] for image in images),
        len(boxes),
        any(box.get('segmentation') for box in boxes),
    )


def _load_json(path: Path) -> dict:
    text = _read(path)
    try:
        content = json.loads(text)
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
        if not isinstance(number, int | str) or number in ids:
            raise UserError(
                f'{path}: {key} holds the id {number!r:.80} twice'
                if number in ids
                else f'{path}: {key} holds the id {number!r:.80}'
            )
        ids.add(number)
    return ids


def _check_image(path: Path, image: dict) -> None:
    name = image.get('file_name')
    if not isinstance(name, str) or not name:
        raise UserError(f'{path}: image {image["id"]} has no file_name')
    for key in ('width', 'height'):
        if not _is_number(image.get(key)) or image[key] < 1:
            raise UserError(
                f'{path}: image {image["id"]} has {key}={image.get(key)!r}'
            )


def _check_box(path: Path, box: dict, images: set, categories: set) -> None:
    # Compared as they are: a list cannot be in a set.
    for key, known in (('image_id', images), ('category_id', categories)):
        value = box.get(key)
        if not isinstance(value, int | str) or value not in known:
            raise UserError(
                f'{path}: annotation {box["id"]} has {key}={value!r:.80}, '
                'which the file does not know'
            )
    bbox = box.get('bbox')
    if (
        not isinstance(bbox, list)
        or len(bbox) != 4
        or not all(_is_number(value) for value in bbox)
    ):
        raise UserError(
            f'{path}: annotation {box["id"]} has bbox={bbox!r:.80}, '
            'four finite numbers are needed'
        )
    # mmdet and pycocotools read both of every annotation.
    for key in ('area', 'iscrowd'):
        if not _is_number(box.get(key)):
            raise UserError(
                f'{path}: annotation {box["id"]} has '
                f'{key}={box.get(key)!r:.80}, a number is needed'
            )


def _is_number(value) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def read_voc(
    list_file: str | Path, xml_dir: str | Path, image_dir: str | Path = ''
) -> Annotations:
    """Read and check a VOC image list and the XML file of every image.

    The classes come sorted by name, as VOC's own twenty are.

    Raises:
        UserError: names the file and what is wrong in it.
    """
    list_file, xml_dir = Path(list_file), Path(xml_dir)
    try:
        ids = _read(list_file).decode().splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f'image list {list_file} is not a text') from error
    names = []
    for number, image_id in enumerate(ids, 1):
        if not image_id.strip():
            raise UserError(f'image list {list_file}: line {number} is empty')
        names.extend(_read_xml(xml_dir / f'{image_id}.xml'))
    if not names:
        raise UserError(f'image list {list_file}: no image has an object')
    return Annotations(
        list_file,
        tuple(sorted(set(names))),
        tuple(str(Path(image_dir) / f'{image_id}.jpg') for image_id in ids),
        len(names),
        False,
    )


def _read_xml(path: Path) -> Iterable[str]:
    """The class names of the objects in one XML file, checked."""
    try:
        root = ET.fromstring(_read(path))
    except (ET.ParseError, ValueError, LookupError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f'annotation file {path} is not valid XML: {error}'
        ) from error
    if root.find('size') is not None:
        for key in ('width', 'height'):
            text = root.findtext(f'size/{key}', '')
            if not text.strip().isdecimal() or int(text) < 1:
                raise UserError(f'{path}: size has {key}={text!r}')
    for thing in root.findall('object'):
        name = thing.findtext('name')
        if not name:
            raise UserError(f'{path}: an object has no name')
        for key in ('xmin', 'ymin', 'xmax', 'ymax'):
            text = thing.findtext(f'bndbox/{key}', '')
            if not _is_number(_to_float(text)):
                raise UserError(f'{path}: object {name!r} has {key}={text!r}')
        difficult = thing.findtext('difficult', '0')
        if difficult not in ('0', '1'):
            raise UserError(
                f'{path}: object {name!r} has difficult={difficult!r}'
            )
        yield name


def _to_float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
