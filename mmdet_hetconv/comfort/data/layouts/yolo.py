"""YOLO's layout: images, text files of normalised boxes, and data.yaml."""

import glob
import logging
from functools import partial
from pathlib import Path

import yaml

from ....utils.announce import announce
from ....utils.errors import UserError
from ....utils.images import IMAGE_ENDINGS, files_below, is_data
from ..annotations import read_text
from ..image_sizes import size_of
from .image_finder import ImageFinder, find_in_any_case
from .to_coco import Box, LabelledImage, Reader, images_in
from .yolo_labels import count_key_points, read_labels

# Keys of data.yaml, and names of the folders of a split.
SPLITS = dict(train=('train',), val=('val', 'valid', 'validation'), test=('test',))
# Text files that lie among labels and belong to no image, by their beginnings.
_NOTES = ('classes', 'notes', 'readme')
# How YAML writes that a key has no value.
_NULL = ('', '~', 'null', 'Null', 'NULL')
PLACES = ('images/{}', '{}/images')


def yolo_config(root: Path) -> Path | None:
    """data.yaml, if there is one."""
    names = ('data.yaml', 'data.yml')
    return next((path for path in root.iterdir() if path.name.lower() in names), None)


def read_yolo(root: Path) -> tuple[dict[str, Reader], list[str]]:
    """Readers of the splits, or one named 'all' if there are none, and the classes.

    Raises:
        UserError: data.yaml is wrong. A reader: a label file is; labels without an image.
    """
    path = yolo_config(root)
    config = _read_yaml(path)
    classes = _classes(path, config)
    layout = _Layout(root, config, classes)
    splits: dict[str, Reader] = {}
    for split, names in SPLITS.items():
        if split == 'test' and len(splits) == 2:
            break  # not used, whatever it is
        sources = layout.sources(names)
        if sources:
            splits[split] = partial(layout.read, sources)
    images = find_in_any_case(root / 'images')
    if not splits and images is not None:
        splits['all'] = partial(layout.read, [images])
    if not splits:
        raise UserError(f'{path} names no folder of images that is there')
    return splits, classes


def _read_yaml(path: Path) -> dict:
    try:
        # All scalars as texts: a class named yes or 010 is meant so.
        content = yaml.load(read_text(path), yaml.BaseLoader)
    except yaml.YAMLError as error:
        line = ' '.join(str(error).split())
        raise UserError(f'{path} is not valid YAML: {line:.200}') from error
    if not isinstance(content, dict) or content.get('names', '') in ('', [], {}, *_NULL):
        raise UserError(f'{path} has no names of classes')
    return {key: value for key, value in content.items() if value not in _NULL}


def _classes(path: Path, config: dict) -> list[str]:
    names = config['names']
    if isinstance(names, str):
        file = path.parent / names
        if file.is_file():
            names = [name.strip() for name in read_text(file).split('\n') if name.strip()]
        elif '.' in names or '/' in names:
            raise UserError(f'{path}: names is {names}, which is no file in {path.parent}')
        else:
            announce(f'{path}: names is the text {names!r}, taken for one class', logging.WARNING)
            names = [names]
    if isinstance(names, dict):
        if sorted(names) != sorted(map(str, range(len(names)))):
            keys = ', '.join(sorted(names))
            raise UserError(f'{path}: names has the keys [{keys}], not 0, 1, ...')
        names = [names[str(number)] for number in range(len(names))]
    odd = next((name for name in names if not isinstance(name, str) or not name), None)
    if odd is not None:
        raise UserError(f'{path}: names has {odd!r:.80}, which is no name of a class')
    if len(set(names)) < len(names):
        raise UserError(f'{path}: names has a class twice')
    if config.get('nc', str(len(names))) != str(len(names)):
        announce(
            f'{path}: nc={config["nc"]}, but names has {len(names)} classes, which are taken',
            logging.WARNING,
        )
    return names


class _Layout:
    """Finds the images and labels of a YOLO data set.

    Args:
        root: its folder.
        config: of data.yaml.
    """

    def __init__(self, root: Path, config: dict, classes: list[str]):
        self._root = root
        self._config = config
        self._base = root / str(config.get('path') or '').replace('\\', '/')
        self._classes = classes
        self._points = count_key_points(config)
        # By folder, label files by name in small letters.
        self._labels: dict[Path, dict[str, Path]] = {}

    def sources(self, names: tuple[str, ...]) -> list[Path]:
        """Folders and lists of a split: those in data.yaml, or the usual folders."""
        missing: list[str] = []
        for name in names:
            values = self._config.get(name)
            values = [values] if isinstance(values, str) else values or []
            if not all(isinstance(value, str) for value in values):
                raise UserError(f'data.yaml of {self._root}: {name}={values!r:.80} is no list')
            values = [value for value in values if value not in _NULL]
            found = [self._places(value) for value in values]
            if found and all(found):
                return [place for places in found for place in places]
            missing += [f'{name}={value}' for value, places in zip(values, found) if not places]
            if missing and (len(values) > 1 or missing[0].endswith('.txt')):
                raise UserError(f'data.yaml of {self._root}: {missing[0]} is not there')
        places = [
            place
            for name in names
            for text in PLACES
            if (place := find_in_any_case(self._root / text.format(name))) is not None
        ]
        if len(places) > 1:
            announce(f'{places[0]} is taken, {places[1]} beside it is not', logging.WARNING)
        if missing and places and not _is_usual(missing[0].partition('=')[2], names):
            announce(
                f'data.yaml of {self._root}: {missing[0]} is not there, {places[0]} is taken',
                logging.WARNING,
            )
        return places[:1]

    def _places(self, value: str) -> list[Path]:
        """A folder, a list, or the folders and images that a pattern matches."""
        place = self._place(value)
        if place is None and any(letter in value for letter in '*?['):
            for base in (self._base, self._root):
                found = map(Path, sorted(glob.glob(str(base / value), recursive=True)))
                if places := [path for path in found if path.is_dir() or _is_image(path)]:
                    return places
        return [] if place is None else [place]

    def _place(self, value: str) -> Path | None:
        value = value.replace('\\', '/')
        inside = self._root / value.lstrip('./')
        # Exported files often start at a folder of another machine, or beside the data:
        # what lies there may be another data set.
        beside = value.startswith('../') and not self._config.get('path')
        parts = Path(value).parts
        tried = [self._base / value, self._root / value, inside]
        # images/ alone may be of all splits.
        last = len(parts) - (not value.endswith('.txt'))
        tried += [self._root.joinpath(*parts[start:]) for start in range(1, last)]
        for path in [inside, *tried] if beside else tried:
            found = find_in_any_case(path)
            if found is not None and (found.is_dir() or found.suffix == '.txt'):
                return found
        return None

    def read(self, sources: list[Path]) -> list[LabelledImage]:
        """Read the images of folders and lists with their labels.

        Raises:
            UserError: a file is wrong; there are no images, labels, or images of labels.
        """
        images: list[Path] = []
        for source in sources:
            found = self._images(source)
            if not found:
                raise UserError(f'{source} has no images')
            images += found
        labels = self._labels_of([*dict.fromkeys(images)])
        pictures = []
        for image, label in labels.items():
            size = size_of(image)
            boxes = [] if label is None else self._boxes(label, size)
            pictures.append(LabelledImage(image, size, boxes))
        bare = [*labels.values()].count(None)
        where = ', '.join(map(str, sources))
        for source in sources:
            lonely = self._labels_below(source) - {*labels.values()} if source.is_dir() else None
            if lonely:
                raise UserError(f'{min(lonely)} has no image in {where}')
        if bare == len(pictures):
            folder = _label_folder(pictures[0].path.parent)
            raise UserError(f'{folder} has no label file for the images of {where}')
        if bare:
            announce(f'{where}: {bare} images without label file are taken to show no object')
        return pictures

    def _images(self, source: Path) -> list[Path]:
        if source.is_dir():
            return images_in(source, recursive=True)
        return [source] if _is_image(source) else self._listed(source)

    def _listed(self, path: Path) -> list[Path]:
        find = ImageFinder([path.parent, self._base, self._root])
        images = []
        for line in read_text(path).splitlines():
            if line.strip():
                image = find(line.strip())
                if image is None:
                    raise UserError(f'{path} names the image {line.strip()}, which is not there')
                images.append(image)
        return images

    def _labels_of(self, images: list[Path]) -> dict[Path, Path | None]:
        """The label file of each image, by its name; in another letter case if no image has it."""
        found = {image: self._label_of(image, image.stem) for image in images}
        taken = {*found.values()}
        for image in (image for image, label in found.items() if label is None):
            label = self._label_of(image, image.stem.lower())
            found[image] = None if label in taken else label
        return found

    def _label_of(self, image: Path, stem: str) -> Path | None:
        folders = (_label_folder(image.parent), image.parent)
        return next(filter(None, (self._labels_in(folder).get(stem) for folder in folders)), None)

    def _labels_in(self, folder: Path) -> dict[str, Path]:
        if folder not in self._labels:
            files = sorted(folder.iterdir()) if folder.is_dir() else []
            files = [path for path in files if _is_label(path)]
            low = {path.stem.lower(): path for path in files}
            self._labels[folder] = low | {path.stem: path for path in files}
        return self._labels[folder]

    def _labels_below(self, images: Path) -> set[Path]:
        labels = filter(_is_label, files_below(_label_folder(images)))
        return {path for path in labels if not path.stem.lower().startswith(_NOTES)}

    def _boxes(self, path: Path, size: tuple[int, int]) -> list[Box]:
        return read_labels(path, self._classes, size, self._points)


def _is_usual(value: str, names: tuple[str, ...]) -> bool:
    """Whether a place in data.yaml is train or ../train/images: images/train is meant as well."""
    parts = value.replace('\\', '/').lower().split('/')
    return [part for part in parts if part not in ('', '.', '..', 'images')][-1:] in (
        [name] for name in names
    )


def _is_label(path: Path) -> bool:
    return path.suffix.lower() == '.txt' and is_data(path.name)


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_ENDINGS


def _label_folder(images: Path) -> Path:
    """The folder of labels: the last folder named images, renamed to labels."""
    parts = list(images.parts)
    at = max((i for i, part in enumerate(parts) if part.lower() == 'images'), default=None)
    if at is None:
        return images
    parts[at] = 'labels'
    return find_in_any_case(Path(*parts)) or Path(*parts)
