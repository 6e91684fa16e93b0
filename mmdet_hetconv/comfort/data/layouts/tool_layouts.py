"""Layouts of annotation tools: detect them in a folder, and convert them to COCO files."""

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
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


def _has_file(root: Path, name: str) -> bool:
    return (root / name).is_file()


@dataclass(frozen=True)
class Layout:
    """The layout of an annotation tool.

    Attributes:
        looks: how error messages describe it.
        detect: whether a folder seems to have it.
        read: readers of the splits, and the classes; none if they are those of the objects.
    """

    looks: str
    detect: Callable[[Path], object]
    read: Callable[[Path], tuple[dict[str, Reader], list[str]]]


# By priority.
LAYOUTS = {
    'Roboflow': Layout(
        f'train/{ROBOFLOW}, images beside, valid/, test/', roboflow_files, read_roboflow
    ),
    **{
        tool: Layout(
            f'{file} and images/', partial(_has_file, name=file), partial(read_single, tool=tool)
        )
        for tool, (file, _) in SINGLE.items()
    },
    'YOLO': Layout(
        'data.yaml, images/train/ and labels/train/ or train/images/ and train/labels/',
        yolo_config,
        read_yolo,
    ),
    'LabelImg': Layout(
        'an XML file beside each image, in one folder or in train/, val/, test/',
        labelimg_folders,
        read_labelimg,
    ),
}


def find_export(root: Path, layout: str, keep: Path) -> DataFolder:
    """Read one of LAYOUTS.

    Args:
        layout: its name.
        keep: folder for the COCO files.

    Raises:
        UserError: it is wrong, or a split has classes that are not trained on.
    """
    splits, classes = LAYOUTS[layout].read(root)
    if len(splits) == 1:
        ((_, read),) = splits.items()
        chosen = split_by_seed(read(), root)
    else:
        chosen = {name: splits[name]() for name in choose_splits(root, splits)}
    classes = classes or sorted(_classes(sum(chosen.values(), [])))
    if not classes:
        raise UserError(f'{root}: no image has an object')
    return as_coco_files(root, layout, chosen, classes, keep)


def as_coco_files(
    root: Path, layout: str, splits: dict[str, list[LabelledImage]], classes: list[str], keep: Path
) -> DataFolder:
    """Convert two splits to COCO files: the first is trained on, the second evaluated on."""
    trained, evaluated = splits.values()
    warn_of_untrained(_classes(evaluated) - _classes(trained), root)
    files = write_coco(splits, classes, root, keep)
    train, val = (Split(read_coco(path), str(path.resolve()), '') for path in files.values())
    return DataFolder(root, 'COCO', train.annotations.classes, (train,), val, layout)


def _classes(images: list[LabelledImage]) -> set[str]:
    return {box[0] for image in images for box in image.boxes}


def warn_of_untrained(classes: Collection[str], where: Path) -> None:
    """Warn of classes that are evaluated, but occur in no training image."""
    if classes:
        announce(
            f'{where}: no training image has the classes {some(sorted(classes))} of the '
            'validation images: they are not learnt, and count with an AP near 0; put images of '
            'them into the training set, or rename them there',
            logging.WARNING,
        )
