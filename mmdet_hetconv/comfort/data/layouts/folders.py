"""Find the data set in a folder: COCO, VOC, or the layout of an annotation tool."""

import glob
import logging
import os
from dataclasses import replace
from functools import partial
from pathlib import Path

from ....utils.announce import announce
from ....utils.errors import UserError
from ....utils.images import is_data
from ..coco import read_coco
from ..voc import read_voc
from .coco_tools import labelled_images
from .image_finder import ImageFinder, find_in_any_case
from .labelimg import read_image
from .split import DataFolder, Split, choose_splits, glob_patterns
from .to_coco import LabelledImage, split_by_seed
from .tool_layouts import LAYOUTS, as_coco_files, find_export, warn_of_untrained
from .voc_dataset import ImageNames

# Where the annotation file of a split may be, COCO layout.
_COCO_FILES = (
    'annotations/instances_{0}*.json',
    'annotations/{0}*.json',
    'instances_{0}*.json',
    '{0}*.json',
)
# Where its images may be.
_COCO_IMAGES = (
    '{0}',
    '{0}2017',
    '{0}2014',
    'images/{0}',
    'images/{0}2017',
    'images',
    'JPEGImages',
    '',
)
_COCO_SPLITS = ('train', 'val', 'test', 'trainval')
# How the error message describes the two layouts.
_OWN = {
    'COCO': 'annotations/instances_train*.json and images',
    'VOC': 'Annotations/, ImageSets/Main/*.txt and JPEGImages/',
}
# Default folder for the COCO files that other layouts are converted to.
KEEP = Path('work_dirs') / 'annotations'
# VOC07+12 as mmdet's VOC configs use it.
_VOC0712 = ('VOC2007', 'VOC2012')


def find_data(root: str | Path, prefer: str, keep: str | Path = KEEP) -> DataFolder:
    """Read the data set in a folder.

    Args:
        root: the folder.
        prefer: 'COCO' or 'VOC', if the folder has both.
        keep: folder for the COCO files that other layouts are converted to.

    Raises:
        UserError: no such folder; no known layout; a split is missing; the
            annotations are wrong or name other classes.
    """
    root = Path(root).expanduser()
    if not root.is_dir():
        raise UserError(f'--data-root {root} is not a folder')
    finders = {'COCO': partial(_find_coco, keep=Path(keep))}
    finders['VOC'] = partial(_find_voc, keep=Path(keep))
    exports = [name for name, tool in LAYOUTS.items() if tool.detect(root)]
    for layout in sorted(finders, key=lambda name: name != prefer):
        found = finders[layout](root)
        if found:
            _say_others(root, layout, exports)
            _warn_of_shared(found)
            return found
    if exports:
        _say_others(root, exports[0], exports[1:])
        found = find_export(root, exports[0], Path(keep))
        _warn_of_shared(found)
        return found
    there = ', '.join(sorted(path.name for path in root.iterdir())[:10]) or 'nothing'
    looks = _OWN | {name: tool.looks for name, tool in LAYOUTS.items()}
    known = '; '.join(f'{name} ({look})' for name, look in looks.items())
    raise UserError(f'--data-root {root} has {there}, and none of the layouts {known}')


def _say_others(root: Path, layout: str, others: list[str]) -> None:
    if others:
        announce(f'{root} has the layouts {layout} and {", ".join(others)}: {layout} is taken')


def _warn_of_shared(data: DataFolder) -> None:
    """Warn of images that are both trained and evaluated on."""
    train, val = (
        {
            os.path.realpath(data.root / split.images / image): image
            for split in splits
            for image in split.annotations.images
        }
        for splits in (data.train, (data.val,))
    )
    shared = sorted(train.keys() & val.keys())
    if shared:
        announce(
            f'{data.root}: {len(shared)} of the {len(val)} validation images are training images, '
            f'too, {val[shared[0]]} first: metrics on them tell nothing of others',
            logging.WARNING,
        )


def _find_coco(root: Path, keep: Path) -> DataFolder | None:
    files = {name: found for name in _COCO_SPLITS if (found := _coco_files(root, name))}
    if not files:
        return None
    chosen = [*files] if len(files) == 1 else choose_splits(root, files)
    parts = {name: _coco_split(root, name, _only(root, name, files[name])) for name in chosen}
    first, *others = parts.values()
    classes = dict.fromkeys(name for part in parts.values() for name in part.annotations.classes)
    if len(parts) == 1:
        splits = split_by_seed(_coco_images(root, first), root)
        return as_coco_files(root, 'COCO', splits, list(classes), keep)
    found = [part.annotations for part in parts.values()]
    if any(part.needs_own_reader or part.classes != tuple(classes) for part in found):
        pictures = {name: _coco_images(root, part) for name, part in parts.items()}
        return as_coco_files(root, 'COCO', pictures, list(classes), keep)
    return DataFolder(root, 'COCO', first.annotations.classes, (first,), others[0])


def _coco_files(root: Path, name: str) -> list[Path]:
    """The annotation files of a split that match the first pattern with a match."""
    for pattern in glob_patterns(text.format(name) for text in _COCO_FILES):
        found = sorted(
            path
            for path in root.glob(pattern)
            if is_data(path.name) and (name == 'trainval' or 'trainval' not in path.name.lower())
        )
        if found:
            return found
    return []


def _only(root: Path, name: str, found: list[Path]) -> Path:
    if len(found) > 1:
        raise UserError(
            f'--data-root {root} has {len(found)} annotation files for '
            f'{name}: {", ".join(path.name for path in found)}'
        )
    return found[0]


def _coco_split(root: Path, name: str, path: Path) -> Split:
    """A split; mmdet cannot read it if its images are not in one folder under their names."""
    annotations = read_coco(path, strict=False)
    folders = _coco_folders(root, name, path)
    first = annotations.images[0]
    # Path.is_file() fails for a name that is too long.
    folder = next((folder for folder in folders if os.path.isfile(folder / first)), None)
    if folder is None and ImageFinder(folders)(first) is None:
        tried = ', '.join(pattern.format(name) or '.' for pattern in _COCO_IMAGES)
        raise UserError(
            f'{path} names the image {first}, which is in none of the folders {tried} of {root}'
        )
    unusual = (image for image in annotations.images if '\\' in image or '%' in image)
    if folder is None or not all(os.path.isfile(folder / image) for image in unusual):
        annotations = replace(annotations, needs_own_reader=True)
    return Split(annotations, str(path.relative_to(root)), _inside(root, folder or root))


def _coco_folders(root: Path, name: str, path: Path) -> list[Path]:
    """Folders for the images of a split, by the name of the split or of its file."""
    names = dict.fromkeys([name, path.stem.lower().removeprefix('instances_')])
    patterns = [pattern.format(glob.escape(n)) for n in names for pattern in _COCO_IMAGES]
    found = [
        folder
        for pattern in glob_patterns(dict.fromkeys(patterns))
        for folder in (sorted(root.glob(pattern)) if pattern else [root])
        if folder.is_dir()
    ]
    return [*dict.fromkeys(found)]


def _coco_images(root: Path, split: Split) -> list[LabelledImage]:
    path = split.annotations.path
    name = path.stem.lower().removeprefix('instances_')
    folders = [root / split.images, *_coco_folders(root, name, path)]
    return labelled_images(split.annotations, folders)


def _inside(root: Path, folder: Path) -> str:
    """A folder relative to the data root, '' or ending in '/'."""
    return '' if folder == root else f'{folder.relative_to(root).as_posix()}/'


def _find_voc(root: Path, keep: Path) -> DataFolder | None:
    folders = [
        path
        for path in (root, *sorted(root.glob('*')), *sorted(root.glob('*/*')))
        if is_data(path.name)
        and _named(path, 'Annotations').is_dir()
        and _named(path, 'ImageSets').is_dir()
    ]
    if not folders:
        return None
    if len(folders) > 1 and tuple(f.name.upper() for f in folders) != _VOC0712:
        raise UserError(
            f'--data-root {root} holds {len(folders)} VOC data sets: '
            f'{", ".join(path.name for path in folders)}'
        )
    there = [
        {
            name: path
            for name in ('train', 'val', 'trainval', 'test')
            if (path := _named(folder, f'ImageSets/Main/{name}.txt')).is_file()
        }
        for folder in folders
    ]
    if len(folders) == 1 and len(there[0]) == 1:
        split = _voc_split(root, folders[0], *there[0].values())
        splits = split_by_seed(_voc_images(root, split), root)
        return as_coco_files(root, 'VOC', splits, list(split.annotations.classes), keep)
    train, val = choose_splits(folders[0], there[0])
    if len(folders) == 2 and {'trainval', 'test'} <= set(there[0]):
        train, val = 'trainval', 'test'
    for folder, lists in zip(folders, there):
        if train not in lists:
            raise UserError(f'{folder}/ImageSets/Main/{train}.txt does not exist')
    parts = tuple(_voc_split(root, folder, lists[train]) for folder, lists in zip(folders, there))
    rest = _voc_split(root, folders[0], there[0][val])
    classes = sorted({c for part in parts for c in part.annotations.classes})
    unknown = set(rest.annotations.classes).difference(classes)
    warn_of_untrained(unknown, rest.annotations.path)
    return DataFolder(root, 'VOC', tuple(sorted({*classes, *unknown})), parts, rest)


def _voc_split(root: Path, folder: Path, list_file: Path) -> Split:
    xml_dir = _named(folder, 'Annotations')
    image_dir = _named(folder, 'JPEGImages')
    annotations = read_voc(list_file, xml_dir, image_dir.name, ImageNames(image_dir), strict=False)
    return Split(
        annotations,
        str(list_file.relative_to(root)),
        _inside(root, folder),
        xml_dir.name,
        image_dir.name,
    )


def _voc_images(root: Path, split: Split) -> list[LabelledImage]:
    folder = root / split.images
    pictures = []
    for name in map(Path, split.annotations.images):
        xml = name.relative_to(split.img_subdir).with_suffix('.xml')
        pictures.append(read_image(folder / name, folder / split.ann_subdir / xml))
    return pictures


def _named(folder: Path, name: str) -> Path:
    return find_in_any_case(folder / name) or folder / name
