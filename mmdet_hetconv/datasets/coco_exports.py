"""COCO files as annotation tools export them."""

import json
from pathlib import Path

from ..utils.errors import UserError
from .coco import read_coco
from .to_coco import Picture

ROBOFLOW = '_annotations.coco.json'
# One file for everything, and where its images may be.
SINGLE = {
    'CVAT': ('annotations/instances_default.json', ('images/default', 'images', '')),
    'Label Studio': ('result.json', ('', 'images')),
}


def roboflow_files(root: Path) -> dict[str, Path]:
    """Roboflow's files by split; empty if there are none."""
    folders = dict(train=('train',), val=('valid', 'val'), test=('test',))
    return {
        split: path
        for split, names in folders.items()
        for name in names
        if (path := root / name / ROBOFLOW).is_file()
    }


def read_roboflow(root: Path) -> tuple[dict[str, list[Picture]], list[str]]:
    """Pictures by split, and the classes.

    Raises:
        UserError: a file is wrong, or the splits have other classes.
    """
    files = roboflow_files(root)
    classes: list[str] = []
    for path in files.values():
        mine = list(read_coco(path).classes)
        if classes and mine != classes:
            raise UserError(f'{path} has other categories than {next(iter(files.values()))}')
        classes = mine
    splits = {split: read_pictures(path, [path.parent]) for split, path in files.items()}
    # The first is a parent of all others, which no box has.
    used = {box[0] for pictures in splits.values() for p in pictures for box in p.boxes}
    return splits, classes if classes[0] in used else classes[1:]


def read_single(root: Path, tool: str) -> tuple[dict[str, list[Picture]], list[str]]:
    """Pictures and classes of a tool of SINGLE.

    Raises:
        UserError: the file is wrong, or its images are nowhere.
    """
    name, folders = SINGLE[tool]
    classes = list(read_coco(root / name).classes)
    pictures = read_pictures(root / name, [root / folder for folder in folders])
    return dict(all=pictures), classes


def read_pictures(path: Path, folders: list[Path]) -> list[Picture]:
    """What a COCO file says that read_coco() has checked.

    Args:
        folders: where its images may be.

    Raises:
        UserError: an image is in none of them.
    """
    content = json.loads(path.read_text())
    names = {category['id']: category['name'] for category in content['categories']}
    pictures = {}
    for image in content['images']:
        # Label Studio on Windows writes backslashes.
        name = image['file_name'].replace('\\', '/')
        file = next((folder / name for folder in folders if (folder / name).is_file()), None)
        if file is None:
            tried = ', '.join(map(str, folders))
            raise UserError(f'{path} names the image {name}, which is in none of {tried}')
        pictures[image['id']] = Picture(file, (image['width'], image['height']), [])
    for box in content['annotations']:
        more = {key: box[key] for key in ('iscrowd', 'segmentation', 'ignore') if box.get(key)}
        pictures[box['image_id']].boxes.append((names[box['category_id']], *box['bbox'], more))
    return list(pictures.values())
