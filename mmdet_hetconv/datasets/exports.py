"""Layouts of annotation tools: which one a folder has, and its data as COCO files."""

from pathlib import Path

from ..utils.errors import UserError
from .coco import read_coco
from .coco_exports import ROBOFLOW, SINGLE, find_roboflow, find_single
from .labelimg import find_labelimg
from .split import DataFolder, Split, choose_splits
from .to_coco import Picture, images_in, split_by_seed, write_coco
from .yolo import find_yolo

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
        'Roboflow': [*root.glob(f'*/{ROBOFLOW}')],
        **{tool: [*root.glob(file)] for tool, (file, _) in SINGLE.items()},
        'YOLO': [*root.glob('data.y*ml')],
        'LabelImg': [f for f in (root, *_split_folders(root).values()) if _has_pairs(f)],
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
        return find_roboflow(root)
    if layout == 'YOLO':
        return find_yolo(root)
    if layout == 'LabelImg':
        splits = find_labelimg(root, _split_folders(root))
        return splits, _classes(root, splits)
    _, pictures, classes = find_single(root)
    return dict(all=pictures), classes


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


def _split_folders(root: Path) -> dict[str, Path]:
    """Folders of splits by name, in any letter case."""
    names = dict(train='train', val='val', valid='val', test='test', trainval='trainval')
    found: dict[str, Path] = {}
    for path in sorted(p for p in root.iterdir() if p.is_dir()):
        split = names.get(path.name.lower())
        if split and _has_pairs(path):
            found[split] = path
        elif split and not any(path.iterdir()):
            raise UserError(f'{path} is empty')
    return found


def _has_pairs(folder: Path) -> bool:
    """Whether XML files lie beside images."""
    return any(p.suffix.lower() == '.xml' for p in folder.iterdir()) and bool(images_in(folder))
