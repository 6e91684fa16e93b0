"""Data of other layouts as COCO files, beside which the images stay where they are."""

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..utils.announce import announce
from ..utils.errors import UserError
from .image_sizes import UNREADABLE, read_head
from .images import IMAGE_ENDINGS, files_below

# Of the images of a layout with one split only.
VAL_SHARE = 0.2
SEED = 0


@dataclass
class Picture:
    """An image and what is annotated in it.

    Attributes:
        path: of the file.
        size: width and height, pixels.
        boxes: class, x, y, width, height in pixels, and what else COCO knows of it.
    """

    path: Path
    size: tuple[int, int]
    boxes: list[tuple[str, float, float, float, float, dict[str, Any]]]


def images_in(folder: Path, recursive: bool = False) -> list[Path]:
    """The image files of a folder, sorted."""
    paths = files_below(folder) if recursive else folder.iterdir()
    return sorted(p for p in paths if p.suffix.lower() in IMAGE_ENDINGS and p.is_file())


def size_of(path: Path) -> tuple[int, int]:
    """Width and height of an image as it is shown, from its head.

    Raises:
        UserError: it is none.
    """
    try:
        (width, height), on_side = read_head(path)
    except UNREADABLE as error:
        raise UserError(f'image {path} cannot be read: {error}') from error
    return (height, width) if on_side else (width, height)


def split_by_seed(pictures: Sequence[Picture], where: Path) -> dict[str, list[Picture]]:
    """Pictures of one split as two, always the same.

    Raises:
        UserError: there are less than two.
    """
    if len(pictures) < 2:
        raise UserError(f'{where} has {len(pictures)} annotated images, two are needed at least')
    order = sorted(pictures, key=lambda picture: str(picture.path))
    random.Random(SEED).shuffle(order)
    count = max(1, round(VAL_SHARE * len(order)))
    announce(
        f'{where} has one split: {count} of its {len(order)} images, drawn with seed {SEED}, '
        'are evaluated on'
    )
    return dict(train=order[count:], val=order[:count])


def write_coco(
    splits: dict[str, list[Picture]], classes: Sequence[str], root: Path, keep: Path
) -> dict[str, Path]:
    """A COCO file for each split, with images relative to `root`.

    They are written to a folder of this data in `keep`; what is there stays if it
    says the same.
    """
    digest = hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:8]
    folder = keep / f'{root.resolve().name}_{digest}'
    folder.mkdir(parents=True, exist_ok=True)
    ids = {name: number for number, name in enumerate(classes, 1)}
    files = {}
    for split, pictures in splits.items():
        images, annotations = [], []
        for number, picture in enumerate(pictures, 1):
            width, height = picture.size
            name = picture.path.relative_to(root).as_posix()
            images.append(dict(id=number, file_name=name, width=width, height=height))
            for kind, x, y, w, h, more in picture.boxes:
                box = dict(image_id=number, category_id=ids[kind], bbox=[x, y, w, h], area=w * h)
                annotations.append(dict(box, id=len(annotations) + 1, **{'iscrowd': 0, **more}))
        content = dict(
            images=images,
            annotations=annotations,
            categories=[dict(id=number, name=name) for name, number in ids.items()],
        )
        path = folder / f'instances_{split}.json'
        text = json.dumps(content)
        if not (path.exists() and path.read_text() == text):
            path.write_text(text)
        files[split] = path
    announce(f'annotations of {root} kept as COCO files in {folder}')
    return files
