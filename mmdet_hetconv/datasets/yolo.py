"""YOLO's layout: images, text files of normalised boxes, and data.yaml."""

from pathlib import Path

import yaml

from ..utils.announce import announce
from ..utils.errors import UserError
from .annotations import is_number, read_file
from .images import files_below
from .to_coco import Picture, images_in, size_of

# What tools round: beyond the edge of an image by this share a box is cut.
ROUNDING = 0.01
# Keys of data.yaml, and where the images of a split are without them.
SPLITS = dict(train=('train',), val=('val', 'valid'), test=('test',))
PLACES = ('images/{}', '{}/images')


def yolo_config(root: Path) -> Path | None:
    """data.yaml, if there is one."""
    names = ('data.yaml', 'data.yml')
    return next((path for path in root.glob('*.y*ml') if path.name.lower() in names), None)


def read_yolo(root: Path) -> tuple[dict[str, list[Picture]], list[str]]:
    """Pictures by split, one named 'all' where there are no splits, and the classes.

    Raises:
        UserError: data.yaml or a label file is wrong; labels without an image.
    """
    path = yolo_config(root)
    config = _read_yaml(path)
    classes = _classes(path, config)
    splits = {}
    for split, names in SPLITS.items():
        folder = _image_folder(root, config, names)
        if folder is not None:
            splits[split] = _read(folder, classes, root)
    if not splits and (root / 'images').is_dir():
        splits['all'] = _read(root / 'images', classes, root)
    if not splits:
        raise UserError(f'{path} names no folder of images that is there')
    return splits, classes


def _read_yaml(path: Path) -> dict:
    try:
        content = yaml.safe_load(read_file(path).decode('utf-8-sig'))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        line = ' '.join(str(error).split())
        raise UserError(f'{path} is not valid YAML: {line:.200}') from error
    if not isinstance(content, dict) or not content.get('names'):
        raise UserError(f'{path} has no names of classes')
    return content


def _classes(path: Path, config: dict) -> list[str]:
    names = config['names']
    if isinstance(names, dict):
        if sorted(names) != list(range(len(names))):
            raise UserError(f'{path}: names has the keys {sorted(names, key=str)}, not 0, 1, ...')
        names = [names[number] for number in range(len(names))]
    names = [str(name) for name in names]
    if len(set(names)) < len(names):
        raise UserError(f'{path}: names has a class twice')
    return names


def _image_folder(root: Path, config: dict, names: tuple[str, ...]) -> Path | None:
    """Of a split: where data.yaml says, or where tools put it."""
    tried = []
    for name in names:
        value = config.get(name)
        if isinstance(value, str):
            # Exported files often start at a folder of another machine, or beside the data.
            base = str(config.get('path') or '')
            tried += [root / base / value, root / value, root / value.lstrip('./')]
        tried += [root / place.format(name) for place in PLACES]
    return next((path for path in tried if path.is_dir()), None)


def _read(folder: Path, classes: list[str], root: Path) -> list[Picture]:
    images = images_in(folder, recursive=True)
    if not images:
        raise UserError(f'{folder} has no images')
    labels = _label_folder(folder)
    files = {
        path.relative_to(labels).with_suffix(''): path
        for path in files_below(labels)
        if path.suffix == '.txt'
    }
    files.pop(Path('classes'), None)  # labelImg's list of names
    pictures = []
    bare = 0
    for path in images:
        size = size_of(path)
        file = files.pop(path.relative_to(folder).with_suffix(''), None)
        bare += file is None
        boxes = [] if file is None else _read_labels(file, classes, size)
        pictures.append(Picture(path.resolve().relative_to(root.resolve()), size, boxes))
        pictures[-1].path = root / pictures[-1].path
    if files:
        raise UserError(f'{min(files.values())} has no image in {folder}')
    if bare == len(images):
        raise UserError(f'{labels} has no label file for the images of {folder}')
    if bare:
        announce(f'{folder}: {bare} images without label file are taken to show no object')
    return pictures


def _label_folder(images: Path) -> Path:
    """The last folder named images, as labels."""
    parts = list(images.parts)
    at = max((i for i, part in enumerate(parts) if part.lower() == 'images'), default=None)
    if at is None:
        return images
    parts[at] = 'labels'
    return Path(*parts)


def _read_labels(
    path: Path, classes: list[str], size: tuple[int, int]
) -> list[tuple[str, float, float, float, float, dict]]:
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
            kind, *values = map(float, line.split())
        except ValueError as error:
            raise UserError(f'{where}: {line.strip()!r:.80} are not numbers') from error
        if kind not in range(len(classes)):
            raise UserError(f'{where}: class {kind:g}, but data.yaml has {len(classes)}, from 0 on')
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
    """Left, top, right and bottom of a box, or around a polygon."""
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
