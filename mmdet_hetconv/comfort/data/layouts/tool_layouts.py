"""Layouts of annotation tools: detect them in a folder, and convert them to COCO files."""

import logging
from collections.abc import Collection
from pathlib import Path

from ....utils.announce import announce
from ....utils.errors import UserError
from ....utils.suggestion import some
from ..coco import read_coco
from .coco_tools import ROBOFLOW, SINGLE, read_roboflow, read_single, roboflow_files
from .labelimg import labelimg_folders, read_labelimg
from .split import DataFolder, Split, choose_splits
from .to_coco import LabelledImage, Reader, split_by_seed, write_coco
from .yolo import read_yolo, yolo_config

# How the error message describes each layout.
LAYOUTS = {
    'Roboflow': f'train/{ROBOFLOW}, images beside, valid/, test/',
    **{tool: f'{file} and images/' for tool, (file, _) in SINGLE.items()},
    'YOLO': 'data.yaml, images/train/ and labels/train/ or train/images/ and train/labels/',
    'LabelImg': 'an XML file beside each image, in one folder or in train/, val/, test/',
}


def exports_in(root: Path) -> list[str]:
    """Names of the LAYOUTS that a folder seems to have, by priority."""
    marks = {
        'Roboflow': roboflow_files(root),
        **{tool: (root / file).is_file() for tool, (file, _) in SINGLE.items()},
        'YOLO': yolo_config(root),
        'LabelImg': labelimg_folders(root),
    }
    return [name for name in LAYOUTS if marks[name]]


def find_export(root: Path, layout: str, keep: Path) -> DataFolder:
    """Read one of LAYOUTS.

    Args:
        layout: of :func:`exports_in`.
        keep: folder for the COCO files.

    Raises:
        UserError: it is wrong, or a split has classes that are not trained on.
    """
    splits, classes = _read(root, layout)
    if len(splits) == 1:
        ((_, read),) = splits.items()
        chosen = split_by_seed(read(), root)
    else:
        chosen = {name: splits[name]() for name in choose_splits(root, splits)}
    return as_coco_files(root, layout, chosen, classes or classes_of(chosen, root), keep)


def as_coco_files(
    root: Path, layout: str, splits: dict[str, list[LabelledImage]], classes: list[str], keep: Path
) -> DataFolder:
    """Convert two splits to COCO files: the first is trained on, the second evaluated on."""
    tell_untrained(
        {box[0] for pictures in [*splits.values()][1:] for p in pictures for box in p.boxes}
        - {box[0] for p in [*splits.values()][0] for box in p.boxes},
        root,
    )
    files = write_coco(splits, classes, root, keep)
    train, val = (Split(read_coco(path), str(path.resolve()), '') for path in files.values())
    return DataFolder(root, 'COCO', train.annotations.classes, (train,), val, layout)


def _read(root: Path, layout: str) -> tuple[dict[str, Reader], list[str]]:
    """Readers of the splits, and the classes; none if they are those of the objects."""
    if layout == 'Roboflow':
        return read_roboflow(root)
    if layout == 'YOLO':
        return read_yolo(root)
    if layout == 'LabelImg':
        return read_labelimg(root), []
    return read_single(root, layout)


def classes_of(splits: dict[str, list[LabelledImage]], root: Path) -> list[str]:
    """The classes of all objects, sorted.

    Raises:
        UserError: there is no object.
    """
    classes = {box[0] for pictures in splits.values() for p in pictures for box in p.boxes}
    if not classes:
        raise UserError(f'{root}: no image has an object')
    return sorted(classes)


def tell_untrained(classes: Collection[str], where: Path) -> None:
    """Warn of classes that are evaluated, but occur in no training image."""
    if classes:
        announce(
            f'{where}: no training image has the classes {some(sorted(classes))} of the '
            'validation images: they are not learnt, and count with an AP near 0; put images of '
            'them into the training set, or rename them there',
            logging.WARNING,
        )
