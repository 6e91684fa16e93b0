"""What :func:`find_data` returns: a data set on disk and its splits."""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from ....utils.errors import UserError
from ..annotations import Annotations

# Names of the training and the validation split; the first complete pair is taken.
_SPLITS = (('train', 'val'), ('trainval', 'test'), ('train', 'test'))


@dataclass(frozen=True)
class Split:
    """One annotation file and the folder of its images.

    Attributes:
        annotations: content of the file.
        ann_file: the file, relative to the data root.
        images: COCO: the images' folder; VOC: the folder of Annotations/ and
            JPEGImages/. Relative to the data root, '' or ending in '/'.
        ann_subdir: VOC: Annotations/, in the letter case on disk.
        img_subdir: VOC: JPEGImages/, in the letter case on disk.
    """

    annotations: Annotations
    ann_file: str
    images: str
    ann_subdir: str = 'Annotations'
    img_subdir: str = 'JPEGImages'


@dataclass(frozen=True)
class DataFolder:
    """A data set on disk.

    Attributes:
        root: the folder.
        layout: 'COCO' or 'VOC'.
        classes: of all splits.
        train: splits to train on; two for VOC07+12.
        val: split to evaluate on.
        source: original layout of files that were converted to COCO's.
    """

    root: Path
    layout: str
    classes: tuple[str, ...]
    train: tuple[Split, ...]
    val: Split
    source: str = ''

    def __str__(self) -> str:
        train = ' + '.join(split.ann_file for split in self.train)
        images = sum(len(split.annotations.images) for split in self.train)
        names = ', '.join(self.classes[:20])
        more = ', ...' if len(self.classes) > 20 else ''
        return (
            f'{self.source or self.layout} layout in {self.root}: training on {train} '
            f'({images} images), evaluation on {self.val.ann_file} '
            f'({len(self.val.annotations.images)} images), '
            f'{len(self.classes)} classes: {names}{more}'
        )


def glob_patterns(patterns: Iterable[str]) -> list[str]:
    """Patterns for Path.glob(): first as they are, then for any letter case."""
    patterns = list(patterns)
    return patterns + [
        re.sub('[A-Za-z]', lambda x: f'[{x[0].lower()}{x[0].upper()}]', name) for name in patterns
    ]


def choose_splits(root: Path, there: Collection[str]) -> tuple[str, str]:
    """Names of the splits to train and to evaluate on."""
    for train, val in _SPLITS:
        if train in there and val in there:
            return train, val
    raise UserError(
        f'--data-root {root} needs the splits train and val, trainval and '
        f'test, or train and test; it has {", ".join(there)}'
    )
