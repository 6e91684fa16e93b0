"""LabelImg's layout: images, and a VOC XML file of the same name beside each."""

from pathlib import Path

from ..utils.announce import announce
from ..utils.errors import UserError
from .images import IMAGE_ENDINGS
from .to_coco import Picture, images_in, size_of
from .voc import read_objects

# Names of folders of splits, in any letter case.
SPLITS = dict(train='train', val='val', valid='val', test='test', trainval='trainval')


def labelimg_folders(root: Path) -> dict[str, Path]:
    """Folders with XML files beside images by split, or one named 'all'; may be empty."""
    found = {split: path for split, path in _split_folders(root).items() if _has_pairs(path)}
    return found or ({'all': root} if _has_pairs(root) else {})


def read_labelimg(root: Path) -> dict[str, list[Picture]]:
    """Pictures by split, one named 'all' where there are no folders for them.

    Raises:
        UserError: a split's folder is empty; an XML file without an image, or one that
            is wrong.
    """
    for path in _split_folders(root).values():
        if not any(path.iterdir()):
            raise UserError(f'{path} is empty')
    return {split: _read(path) for split, path in labelimg_folders(root).items()}


def _split_folders(root: Path) -> dict[str, Path]:
    folders = sorted(path for path in root.iterdir() if path.is_dir())
    return {SPLITS[p.name.lower()]: p for p in folders if p.name.lower() in SPLITS}


def _has_pairs(folder: Path) -> bool:
    endings = {path.suffix.lower() for path in folder.iterdir()}
    return '.xml' in endings and not endings.isdisjoint(IMAGE_ENDINGS)


def _xml_files(folder: Path) -> dict[str, Path]:
    return {p.stem: p for p in sorted(folder.iterdir()) if p.suffix.lower() == '.xml'}


def _read(folder: Path) -> list[Picture]:
    files = _xml_files(folder)
    images: dict[str, Path] = {}
    for path in images_in(folder):
        if path.stem in images:
            raise UserError(f'{folder} has two images of the name {path.stem}')
        images[path.stem] = path
    lonely = sorted(set(files) - set(images))
    if lonely:
        raise UserError(f'{files[lonely[0]]} has no image beside it')
    bare = len(set(images) - set(files))
    if bare:
        announce(f'{folder}: {bare} images without XML file are left out')
    return [read_picture(images[name], path) for name, path in files.items()]


def read_picture(image: Path, path: Path) -> Picture:
    """An image and what its VOC XML file says.

    Raises:
        UserError: as :func:`read_labelimg`.
    """
    size = size_of(image)
    boxes = []
    for kind, (x1, y1, x2, y2), difficult in read_objects(path, size):
        # VOC counts pixels from 1.
        box = (kind, x1 - 1, y1 - 1, x2 - x1, y2 - y1, dict(ignore=1) if difficult else {})
        boxes.append(box)
    return Picture(image, size, boxes)
