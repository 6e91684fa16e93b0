"""COCO files as Roboflow, CVAT and Label Studio export them."""

import logging
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from ....utils.announce import announce
from ....utils.errors import UserError
from ..annotations import Annotations
from ..coco import check_coco, load_json, read_coco
from .image_finder import ImageFinder, find_in_any_case
from .split import choose_splits
from .to_coco import LabelledImage, Reader

ROBOFLOW = '_annotations.coco.json'
# Tools that write one file, and the folders of its images.
SINGLE = {
    'CVAT': ('annotations/instances_default.json', ('images/default', 'images', '')),
    'Label Studio': ('result.json', ('', 'images')),
}


# Keys of a box that are kept beside class and place.
_KEPT = ('area', 'iscrowd', 'segmentation', 'ignore')


def roboflow_files(root: Path) -> dict[str, Path]:
    """Roboflow's files by split; empty if there are none."""
    files: dict[str, Path] = {}
    for split, names in dict(train=('train',), val=('valid', 'val'), test=('test',)).items():
        found = [path for name in names if (path := find_in_any_case(root / name / ROBOFLOW))]
        if len(found) > 1:
            announce(f'{found[0]} is taken, {found[1]} is not', logging.WARNING)
        if found:
            files[split] = found[0]
    return files


def read_roboflow(root: Path) -> tuple[dict[str, Reader], list[str]]:
    """Readers of the splits, and the classes.

    Raises:
        UserError: a file is wrong, or the splits have other classes.
    """
    files = roboflow_files(root)
    used = files if len(files) == 1 else {name: files[name] for name in choose_splits(root, files)}
    contents = {split: load_json(path)[0] for split, path in used.items()}
    parent = _parent(contents.values())
    found: dict[str, Annotations] = {}
    for split, content in contents.items():
        if parent is not None:
            content['categories'] = content['categories'][1:]
        found[split] = check_coco(files[split], content, strict=False)
    (first, *others) = found.values()
    for other in others:
        if other.classes != first.classes:
            raise UserError(f'{other.path} has other categories than {first.path}')
    splits: dict[str, Reader] = {
        split: partial(labelled_images, annotations, [annotations.path.parent])
        for split, annotations in found.items()
    }
    return splits, list(first.classes)


def _parent(contents: Iterable[dict]) -> str | None:
    """The name of the first category, if it has no box and is the parent of the others."""
    contents = [*contents]
    parents = []
    for content in contents:
        categories, boxes = content.get('categories'), content.get('annotations')
        if not isinstance(categories, list) or len(categories) < 2:
            return None
        if not all(isinstance(entry, dict) for entry in (*categories, *(boxes or ()))):
            return None
        first, *others = categories
        if any(box.get('category_id') == first.get('id') for box in boxes or ()):
            return None
        above = {category.get('supercategory') for category in others}
        if above != {None} and first.get('name') not in above:
            return None
        parents.append(first.get('name'))
    if len(set(parents)) != 1:
        return None
    announce(
        f'the category {parents[0]!r}, which no box has, is taken for the parent of the others'
    )
    return parents[0]


def read_single(root: Path, tool: str) -> tuple[dict[str, Reader], list[str]]:
    """The reader, and the classes, of a tool in SINGLE.

    Raises:
        UserError: the file is wrong, or its images are nowhere.
    """
    name, folders = SINGLE[tool]
    annotations = read_coco(root / name, strict=False)
    places = [place for folder in folders if (place := find_in_any_case(root / folder))]
    return {'all': partial(labelled_images, annotations, places)}, list(annotations.classes)


def labelled_images(annotations: Annotations, folders: list[Path]) -> list[LabelledImage]:
    """The images of a COCO file with their boxes.

    Args:
        folders: where the images may be.

    Raises:
        UserError: an image is in none of them.
    """
    content = annotations.entries
    names = {category['id']: category['name'] for category in content['categories']}
    find = ImageFinder(folders)
    images = {}
    for image in content['images']:
        file = find(image['file_name'])
        if file is None:
            tried = ', '.join(map(str, folders))
            raise UserError(
                f'{annotations.path} names the image {image["file_name"]}, which is in none of '
                f'{tried}'
            )
        images[image['id']] = LabelledImage(file, (image['width'], image['height']), [])
    for box in content['annotations']:
        more = {key: box[key] for key in _KEPT if box.get(key)}
        images[box['image_id']].boxes.append((names[box['category_id']], *box['bbox'], more))
    return list(images.values())
