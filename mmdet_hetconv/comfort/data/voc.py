"""Reader of VOC image lists and XML files that checks every object."""

import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable
from pathlib import Path

from ...utils.errors import UserError
from ...utils.images import MOST_PIXELS
from .annotations import Annotations, Content, is_number, read_file, warn_of_repeats
from .image_sizes import check_size

Box = tuple[float, float, float, float]
_EDGES = ('xmin', 'ymin', 'xmax', 'ymax')


def read_voc(
    list_file: str | Path,
    xml_dir: str | Path,
    image_dir: str | Path = '',
    name_of: Callable[[str], str] = '{}.jpg'.format,
    strict: bool = True,
) -> Annotations:
    """Read and check a VOC image list and the XML file of every image.

    Classes are sorted by name, as the twenty of VOC are.

    Args:
        list_file: the list.
        xml_dir: folder of the XML files.
        image_dir: prefix of the images' names.
        name_of: turns a line of the list into the image's file name.
        strict: whether to refuse what mmdet cannot read, too.

    Raises:
        UserError: names the file and what is wrong in it.
    """
    list_file, xml_dir = Path(list_file), Path(xml_dir)
    ids, odd, warnings = _read_list(list_file, strict)
    contents = []
    names, unusable = [], 0
    for image_id in ids:
        path = xml_dir / f'{image_id}.xml'
        root, unusual = _parse_xml(path)
        odd |= unusual
        content = Content(_size(path, root))
        for name, box, difficult in _objects(path, root, content.size):
            usable = min(box[2] - box[0], box[3] - box[1]) >= 1
            names.append(name)
            content.boxes[(name, *box)] += 1
            unusable += not usable
            content.classes.add(name)
            if usable and not difficult:
                content.learnable.add(name)
        if strict and unusual:
            raise UserError(
                f'{path} is not as mmdet reads it: it has an XML namespace, a size that is no '
                'whole number above 0, or an object without bndbox'
            )
        contents.append(content)
    if not names:
        raise UserError(f'image list {list_file}: no image has an object')
    images = tuple(str(Path(image_dir) / name_of(image_id)) for image_id in ids)
    return Annotations(
        list_file,
        tuple(sorted(set(names))),
        images,
        len(names),
        len(names),
        unusable,
        contents=tuple(contents),
        warnings=(*warnings, *warn_of_repeats(contents, images, list_file)),
        needs_own_reader=odd,
    )


def _read_list(path: Path, strict: bool) -> tuple[list[str], bool, list[str]]:
    """The images of a list, whether mmdet would read others, and warnings."""
    try:
        text = read_file(path).decode()
    except UnicodeDecodeError as error:
        raise UserError(f'image list {path} is not a text') from error
    if strict and text.startswith('\ufeff'):
        raise UserError(f'image list {path} starts with a byte-order mark')
    # As mmengine splits it: other ends of lines belong to a name.
    lines = [line.rstrip('\r') for line in text.removesuffix('\n').split('\n')]
    if strict and not all(line.strip() for line in lines):
        empty = next(number for number, line in enumerate(lines, 1) if not line.strip())
        raise UserError(f'image list {path}: line {empty} is empty')
    if strict:
        return lines, False, []
    ids = read_list(path)
    again = len([line for line in lines if line.strip()]) - len(ids)
    warnings = [f'{path}: {again} images are there twice, and count once'] if again else []
    return ids, ids != lines, warnings


def read_list(path: Path) -> list[str]:
    """The images of a list, each once, without byte-order mark and empty lines."""
    lines = read_file(path).decode('utf-8-sig').split('\n')
    return [*dict.fromkeys(line.rstrip('\r') for line in lines if line.strip())]


def read_objects(path: Path, size: tuple[int, int]) -> list[tuple[str, Box, bool]]:
    """The objects of one XML file, see :func:`_objects`.

    Args:
        size: width and height of the image.

    Raises:
        UserError: names the file and what is wrong in it.
    """
    root, _ = _parse_xml(path)
    declared = _size(path, root)
    if declared:
        check_size(str(path.with_suffix('')), declared, size, path)
    return list(_objects(path, root, declared or size))


def read_size(path: Path) -> tuple[int, int] | None:
    """Width and height by an XML file; None if it has none, or zeros."""
    return _size(path, _parse_xml(path)[0])


def _parse_xml(path: Path) -> tuple[ET.Element, bool]:
    """The root of an XML file without namespaces and capitals in its tags.

    Returns:
        the root, and whether mmdet cannot read the file.
    """
    try:
        root = ET.fromstring(read_file(path))
    except (ET.ParseError, ValueError, LookupError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f'annotation file {path} is not valid XML: {error}') from error
    odd = False
    for element in root.iter():
        name = element.tag.rpartition('}')[2].lower()
        # mmdet passes over <Object> as if nothing was there.
        odd |= name != element.tag
        element.tag = name
    sides = [root.findtext(f'size/{key}', '') for key in ('width', 'height')]
    odd |= root.find('size') is not None and not all(_is_side(side) for side in sides)
    odd |= any(thing.find('bndbox') is None for thing in root.findall('object'))
    return root, odd


def _is_side(text: str) -> bool:
    text = text.strip()
    return text.isdecimal() and len(text) < 10 and int(text) > 0


def _size(path: Path, root: ET.Element) -> tuple[int, int] | None:
    """Width and height of the image; None if the file has none, or zeros."""
    sides = [_to_float(root.findtext(f'size/{key}', '')) for key in ('width', 'height')]
    if root.find('size') is None or sides == [0, 0]:
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
        box = _edges(path, name, thing)
        _check_voc_box(path, name, box, size)
        difficult = thing.findtext('difficult', '0').strip()
        if difficult not in ('0', '1'):
            raise UserError(f'{path}: object {name!r:.80} has difficult={difficult!r:.80}')
        yield name, (box['xmin'], box['ymin'], box['xmax'], box['ymax']), difficult == '1'


def _edges(path: Path, name: str, thing: ET.Element) -> dict[str, float]:
    """Edges of an object's bndbox, or of the box around its rotated box or polygon."""
    if thing.find('bndbox') is None and (turned := thing.find('robndbox')) is not None:
        x, y, width, height, angle = (
            _number(path, name, turned, key) for key in ('cx', 'cy', 'w', 'h', 'angle')
        )
        half_x, half_y = (
            (abs(width * f(angle)) + abs(height * g(angle))) / 2
            for f, g in ((math.cos, math.sin), (math.sin, math.cos))
        )
        edges = (x - half_x, y - half_y, x + half_x, y + half_y)
    elif thing.find('bndbox') is None and (polygon := thing.find('polygon')) is not None:
        points = [part for part in polygon.iter() if re.fullmatch(r'[xy]\d*', part.tag)]
        axes = [
            [_number(path, name, part) for part in points if part.tag.startswith(axis)]
            for axis in 'xy'
        ]
        if not all(axes):
            raise UserError(f'{path}: object {name!r:.80} has a polygon without x and y')
        (xs, ys) = axes
        edges = (min(xs), min(ys), max(xs), max(ys))
    else:
        box = thing.find('bndbox')
        if box is None:
            raise UserError(f'{path}: object {name!r:.80} has no bndbox')
        edges = tuple(_number(path, name, box, key) for key in _EDGES)
    return dict(zip(_EDGES, edges))


def _number(path: Path, name: str, element: ET.Element, key: str = '') -> float:
    text = (element.findtext(key, '') if key else element.text) or ''
    if not is_number(_to_float(text)):
        raise UserError(f'{path}: object {name!r:.80} has {key or element.tag}={text!r:.80}')
    return float(text)


def _side(path: Path, root: ET.Element, key: str) -> int:
    text = root.findtext(f'size/{key}', '').strip()
    value = _to_float(text)
    if not is_number(value) or value < 1 or value != int(value):
        raise UserError(f'{path}: size has {key}={text!r:.80}')
    return int(value)


def _check_voc_box(
    path: Path, name: str, box: dict[str, float], size: tuple[int, int] | None
) -> None:
    """Refuse boxes without area, and those that XMLDataset would clip to one."""
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
        return math.nan if '_' in text else float(text)  # Python takes 2_5 for 25
    except ValueError:
        return math.nan
