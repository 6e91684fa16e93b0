"""LabelImg's layout: images, and a VOC XML file of the same name beside each."""

from pathlib import Path

from ..utils.announce import announce
from ..utils.errors import UserError
from .to_coco import Picture, images_in, size_of
from .voc import read_objects


def find_labelimg(root: Path, splits: dict[str, Path]) -> dict[str, list[Picture]] | None:
    """Pictures by split, one named 'all' where there are no folders for them.

    Args:
        splits: folders of splits, by name; empty if there are none.

    Raises:
        UserError: a folder has images without XML files and the other way round, or a
            file is wrong.
    """
    folders = splits or dict(all=root)
    if not any(_xml_files(folder) for folder in folders.values()):
        return None
    return {name: _read(folder) for name, folder in folders.items()}


def _xml_files(folder: Path) -> dict[str, Path]:
    return {p.stem: p for p in sorted(folder.iterdir()) if p.suffix.lower() == '.xml'}


def _read(folder: Path) -> list[Picture]:
    files = _xml_files(folder)
    images: dict[str, Path] = {}
    for path in images_in(folder):
        if path.stem in images:
            raise UserError(f'{folder} has two images of the name {path.stem}')
        images[path.stem] = path
    if not files:
        raise UserError(f'{folder} has no XML files, other folders beside it have')
    lonely = sorted(set(files) - set(images))
    if lonely:
        raise UserError(f'{files[lonely[0]]} has no image beside it')
    bare = len(set(images) - set(files))
    if bare:
        announce(f'{folder}: {bare} images without XML file are left out')
    pictures = []
    for name, path in files.items():
        image = images[name]
        size = size_of(image)
        boxes = []
        for kind, (x1, y1, x2, y2), difficult in read_objects(path, size):
            # VOC counts pixels from 1.
            box = (kind, x1 - 1, y1 - 1, x2 - x1, y2 - y1, dict(ignore=1) if difficult else {})
            boxes.append(box)
        pictures.append(Picture(image, size, boxes))
    return pictures
