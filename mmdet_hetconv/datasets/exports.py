"""Layouts of annotation tools: which one a folder has, and its data as COCO files."""

from pathlib import Path

from ..utils.errors import UserError
from .coco import read_coco
from .coco_exports import ROBOFLOW, SINGLE, read_roboflow, read_single, roboflow_files
from .labelimg import labelimg_folders, read_labelimg
from .split import DataFolder, Split, choose_splits
from .to_coco import Picture, split_by_seed, write_coco
from .yolo import read_yolo, yolo_config

# By name, what one looks like.
LAYOUTS = {
    'Roboflow': f'train/{ROBOFLOW}, images beside, valid/, test/',
    **{tool: f'{file} and images/' for tool, (file, _) in SINGLE.items()},
    'YOLO': 'data.yaml, images/train/ and labels/train/ or train/images/ and train/labels/',
    'LabelImg': 'an XML file beside each image, in one folder or in train/, val/, test/',
}


def exports_in(root: Path) -> list[str]:
    """Names of LAYOUTS that a folder seems to have, in the order in which they count."""
    marks = {
        'Roboflow': roboflow_files(root),
        **{tool: (root / file).is_file() for tool, (file, _) in SINGLE.items()},
        'YOLO': yolo_config(root),
        'LabelImg': labelimg_folders(root),
    }
    return [name for name in LAYOUTS if marks[name]]


def find_export(root: Path, layout: str, keep: Path) -> DataFolder:
    """The data of one of LAYOUTS.

    Args:
        layout: of :func:`exports_in`.
        keep: folder of the COCO files that are made.

    Raises:
        UserError: it is wrong, or a split has classes that are not trained on.
    """
    splits, classes = _read(root, layout)
    if len(splits) == 1:
        ((_, pictures),) = splits.items()
        splits = split_by_seed(pictures, root)
    train, val = choose_splits(root, splits)
    return as_coco_files(root, layout, {name: splits[name] for name in (train, val)}, classes, keep)


def as_coco_files(
    root: Path, layout: str, splits: dict[str, list[Picture]], classes: list[str], keep: Path
) -> DataFolder:
    """Data as COCO files: what is trained on, and what is evaluated on."""
    files = write_coco(splits, classes, root, keep)
    train, val = (Split(read_coco(path), str(path.resolve()), '') for path in files.values())
    return DataFolder(root, 'COCO', train.annotations.classes, (train,), val, layout)


def _read(root: Path, layout: str) -> tuple[dict[str, list[Picture]], list[str]]:
    if layout == 'Roboflow':
        return read_roboflow(root)
    if layout == 'YOLO':
        return read_yolo(root)
    if layout == 'LabelImg':
        splits = read_labelimg(root)
        return splits, _classes(root, splits)
    return read_single(root, layout)


def _classes(root: Path, splits: dict[str, list[Picture]]) -> list[str]:
    """Of what is trained on, sorted."""
    first = next(name for name in ('train', 'trainval', 'all', *splits) if name in splits)
    classes = {box[0] for picture in splits[first] for box in picture.boxes}
    for pictures in splits.values():
        for picture in pictures:
            for kind, *_ in picture.boxes:
                if kind not in classes:
                    raise UserError(
                        f'{picture.path}: the class {kind!r} does not occur in what is trained on'
                    )
    if not classes:
        raise UserError(f'{root}: no image has an object')
    return sorted(classes)
