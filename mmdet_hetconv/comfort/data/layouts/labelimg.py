"""LabelImg's layout: images, each with a VOC XML file beside it or in annotations/."""

import logging
from dataclasses import dataclass
from pathlib import Path

from ....utils.announce import announce
from ....utils.errors import UserError
from ....utils.images import is_data
from ..image_sizes import size_of
from ..voc import read_objects
from .image_finder import find_in_any_case
from .to_coco import LabelledImage, Reader, images_in

# Splits by the names of their folders, in any letter case.
SPLITS = dict(
    train='train',
    training='train',
    val='val',
    valid='val',
    validation='val',
    test='test',
    testing='test',
    trainval='trainval',
)
# Subfolders of images and of XML files.
PLACES = (('', ''), ('images', 'annotations'), ('JPEGImages', 'Annotations'))


@dataclass(frozen=True)
class _Pair:
    """The folder of a split's images, and that of their XML files."""

    images: Path
    xml: Path

    def read(self) -> list[LabelledImage]:
        """The pictures.

        Raises:
            UserError: the folder is empty; an XML file without an image, or one that is wrong.
        """
        if not any(is_data(path.name) for path in self.images.iterdir()):
            raise UserError(f'{self.images} is empty')
        files = _xml_files(self.xml)
        images: dict[str, Path] = {}
        for path in images_in(self.images):
            if path.stem in images:
                raise UserError(f'{self.images} has two images of the name {path.stem}')
            images[path.stem] = path
        lonely = sorted(set(files) - set(images))
        if lonely:
            beside = 'beside it' if self.xml == self.images else f'in {self.images}'
            raise UserError(f'{files[lonely[0]]} has no image {beside}')
        bare = len(set(images) - set(files))
        if bare:
            announce(f'{self.images}: {bare} images without XML file are left out')
        return [read_image(images[name], path) for name, path in files.items()]


def labelimg_folders(root: Path) -> dict[str, _Pair]:
    """Folders by split, or under 'all' if there are no splits; may be empty."""
    found: dict[str, _Pair] = {}
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        split = SPLITS.get(folder.name.lower())
        pair = _pair(folder) if split else None
        if split and pair and split in found:
            announce(f'{found[split].images} is taken, {pair.images} is not', logging.WARNING)
        elif split and pair:
            found[split] = pair
    for images, xml in PLACES[1:]:
        for folder in _folders_in(root / images):
            split = SPLITS.get(folder.name.lower())
            other = find_in_any_case(root / xml / folder.name)
            if split and other and _xml_files(other):
                found.setdefault(split, _Pair(folder, other))
    if any(_xml_files(pair.xml) for pair in found.values()):
        return found
    pair = _pair(root)
    return {'all': pair} if pair and _xml_files(pair.xml) else {}


def read_labelimg(root: Path) -> tuple[dict[str, Reader], list[str]]:
    """Readers of the splits, or one named 'all' if there are none; no list of classes."""
    return {split: pair.read for split, pair in labelimg_folders(root).items()}, []


def _pair(folder: Path) -> _Pair | None:
    """The pair in one folder; None if it holds only other files."""
    for images, xml in PLACES:
        places = find_in_any_case(folder / images), find_in_any_case(folder / xml)
        if places[0] and places[1] and images_in(places[0]) and _xml_files(places[1]):
            return _Pair(*places)
    return None if any(folder.iterdir()) else _Pair(folder, folder)


def _folders_in(folder: Path) -> list[Path]:
    found = find_in_any_case(folder)
    return sorted(p for p in found.iterdir() if p.is_dir()) if found and found.is_dir() else []


def _xml_files(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        return {}
    files = (p for p in sorted(folder.iterdir()) if p.suffix.lower() == '.xml' and is_data(p.name))
    return {path.stem: path for path in files}


def read_image(image: Path, path: Path) -> LabelledImage:
    """An image with the boxes of its VOC XML file.

    Raises:
        UserError: the image or the file is wrong.
    """
    size = size_of(image)
    boxes = []
    for kind, (x1, y1, x2, y2), difficult in read_objects(path, size):
        # VOC counts pixels from 1.
        box = (kind, x1 - 1, y1 - 1, x2 - x1, y2 - y1, dict(iscrowd=1) if difficult else {})
        boxes.append(box)
    return LabelledImage(image, size, boxes)
