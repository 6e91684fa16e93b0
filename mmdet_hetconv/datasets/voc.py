"""Annotation files of the VOC layout, read with open eyes."""

import math
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable
from pathlib import Path

from ..utils.errors import UserError
from .annotations import MOST_PIXELS, Annotations, Content, is_number, read_file
from .image_sizes import check_size

Box = tuple[float, float, float, float]


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
        text = read_file(list_file).decode()
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
        for name, box, difficult in _objects(path, root, content.size):
            usable = min(box[2] - box[0], box[3] - box[1]) >= 1
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


def read_objects(path: Path, size: tuple[int, int]) -> list[tuple[str, Box, bool]]:
    """The objects of one XML file, see :func:`_objects`.

    Args:
        size: width and height of the image.

    Raises:
        UserError: names the file and what is wrong in it.
    """
    root = _parse_xml(path)
    declared = _size(path, root)
    if declared:
        check_size(str(path.with_suffix('')), declared, size, path)
    return list(_objects(path, root, declared or size))


def _parse_xml(path: Path) -> ET.Element:
    try:
        return ET.fromstring(read_file(path))
    except (ET.ParseError, ValueError, LookupError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f'annotation file {path} is not valid XML: {error}') from error


def _size(path: Path, root: ET.Element) -> tuple[int, int] | None:
    """Width and height of the image; None if the file does not say."""
    if root.find('size') is None:
        return None
    width, height = (_side(path, root, key) for key in ('width', 'height'))
    if width * height > MOST_PIXELS:
        raise UserError(f'{path}: size has {width} x {height} pixels, more than OpenCV reads')
    return width, height


def _objects(
    path: Path, root: ET.Element, size: tuple[int, int] | None
) -> Iterable[tuple[str, Box, bool]]:
    """The objects in one XML file, checked.

    Yields:
        the class name, left, top, right and bottom, counted from 1, and whether
        the object is marked as difficult.
    """
    for thing in root.findall('object'):
        name = thing.findtext('name')
        if not name:
            raise UserError(f'{path}: an object has no name')
        if name != name.strip():
            # XMLDataset takes it for another class than the bare name.
            raise UserError(f'{path}: the name {name!r:.80} of an object has white space around it')
        box = {}
        for key in ('xmin', 'ymin', 'xmax', 'ymax'):
            text = thing.findtext(f'bndbox/{key}', '')
            box[key] = _to_float(text)
            if not is_number(box[key]):
                raise UserError(f'{path}: object {name!r:.80} has {key}={text!r:.80}')
        _check_voc_box(path, name, box, size)
        difficult = thing.findtext('difficult', '0')
        if difficult not in ('0', '1'):
            raise UserError(f'{path}: object {name!r:.80} has difficult={difficult!r:.80}')
        yield name, (box['xmin'], box['ymin'], box['xmax'], box['ymax']), difficult == '1'


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
                f'{path}: object {name!r:.80} has {high}={box[high]:g} below {low}={box[low]:g}'
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
