"""Convert other layouts to COCO files; the images stay where they are."""

import hashlib
import json
import logging
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ....utils.announce import announce
from ....utils.errors import UserError
from ....utils.images import IMAGE_ENDINGS, files_below, is_data
from .image_finder import relative_name

# Share of the validation images, if a data set has one split.
VAL_SHARE = 0.2
SEED = 0


# Class, x, y, width, height in pixels, and further keys of COCO.
Box = tuple[str, float, float, float, float, dict[str, Any]]


@dataclass
class LabelledImage:
    """An image file with its boxes.

    Attributes:
        path: of the file.
        size: width and height, pixels.
        boxes: the annotations.
    """

    path: Path
    size: tuple[int, int]
    boxes: list[Box]


# Reads a split on demand: unused ones may be wrong.
Reader = Callable[[], list[LabelledImage]]


def images_in(folder: Path, recursive: bool = False) -> list[Path]:
    """The image files of a folder, sorted."""
    paths = files_below(folder) if recursive else filter(_is_data, folder.iterdir())
    return sorted(p for p in paths if p.suffix.lower() in IMAGE_ENDINGS and p.is_file())


def _is_data(path: Path) -> bool:
    return is_data(path.name)


def split_by_seed(pictures: Sequence[LabelledImage], where: Path) -> dict[str, list[LabelledImage]]:
    """Split images at random, with a fixed seed, into train and val.

    Raises:
        UserError: there are fewer than two.
    """
    if len(pictures) < 2:
        raise UserError(f'{where} has {len(pictures)} annotated images, two are needed at least')
    pictures = _each_file_once(pictures, where)
    order = sorted(pictures, key=lambda picture: str(picture.path))
    random.Random(SEED).shuffle(order)
    count = max(1, round(VAL_SHARE * len(order)))
    announce(
        f'{where} has one split: {count} of its {len(order)} images, drawn with seed {SEED}, '
        'are evaluated on'
    )
    return dict(train=order[count:], val=order[:count])


def _each_file_once(pictures: Sequence[LabelledImage], where: Path) -> list[LabelledImage]:
    """Merge the entries of one file, so that it cannot get into both splits."""
    files: dict[str, LabelledImage] = {}
    for picture in pictures:
        key = os.path.realpath(picture.path)
        if key in files:
            files[key].boxes += picture.boxes
        else:
            files[key] = LabelledImage(picture.path, picture.size, [*picture.boxes])
    if len(files) < len(pictures):
        announce(
            f'{where}: {len(pictures) - len(files)} images are there twice; the boxes of both '
            'entries count',
            logging.WARNING,
        )
    return [*files.values()]


def write_coco(
    splits: dict[str, list[LabelledImage]], classes: Sequence[str], root: Path, keep: Path
) -> dict[str, Path]:
    """Write a COCO file for each split, with image names relative to `root`.

    Files go to a subfolder of `keep` for this data set; equal ones are not rewritten.
    """
    digest = hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:8]
    folder = keep / f'{root.resolve().name}_{digest}'
    folder.mkdir(parents=True, exist_ok=True)
    ids = {name: number for number, name in enumerate(classes, 1)}
    files = {}
    repeated = 0
    for split, pictures in splits.items():
        images, annotations = [], []
        for number, picture in enumerate(pictures, 1):
            width, height = picture.size
            name = relative_name(picture.path, root)
            images.append(dict(id=number, file_name=name, width=width, height=height))
            known = []
            for entry in picture.boxes:
                if entry in known:
                    repeated += 1
                    continue
                known.append(entry)
                kind, x, y, w, h, more = entry
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
    if repeated:
        announce(
            f'{root}: {repeated} boxes are there twice, with class and place, and are taken once',
            logging.WARNING,
        )
    announce(f'annotations of {root} kept as COCO files in {folder}')
    return files
