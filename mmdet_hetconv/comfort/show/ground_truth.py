"""COCO annotations by the names of images and classes."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from numpy import ndarray

from ...utils.errors import UserError
from ..data.coco import read_coco
from ..data.image_sizes import check_size


class GroundTruth:
    """An annotation file, asked by names.

    Args:
        path (str): COCO annotations.
        labelled (bool): Whether boxes are needed, or images and classes do.
            Default: True

    Attributes:
        content (dict): the file.

    Raises:
        UserError: what :func:`read_coco` finds.
    """

    def __init__(self, path: str, labelled: bool = True):
        self.path = Path(path).expanduser()
        read_coco(self.path, labelled)
        self.content = json.loads(self.path.read_bytes())
        self._categories = {
            category['name']: category['id'] for category in self.content['categories']
        }
        self._names = {value: key for key, value in self._categories.items()}
        self._by_name: dict[str, int] = {}
        self._by_last: dict[str, list[int]] = {}
        for image in self.content['images']:
            name = image['file_name']
            self._by_name[name] = image['id']
            last = PurePosixPath(name).name
            self._by_last.setdefault(last, []).append(image['id'])
        self._sizes = {
            image['id']: (image['width'], image['height']) for image in self.content['images']
        }
        self._boxes: dict[int, list[dict]] = {}
        for box in self.content.get('annotations') or ():
            self._boxes.setdefault(box['image_id'], []).append(box)

    def image_ids(self, names: Sequence[str]) -> dict[str, int]:
        """Of file names relative to the folder of images; those that are known.

        The last part of a name is enough where one image alone has it, here and there.
        """
        last = {name: PurePosixPath(name).name for name in names}
        count = Counter(last.values())
        known = {name: self._by_name[name] for name in names if name in self._by_name}
        for name in names:
            ids = self._by_last.get(last[name], [])
            if len(ids) == 1 and count[last[name]] == 1:
                known.setdefault(name, ids[0])
        return known

    def check_size(self, image_id: int, name: str, pixels: ndarray) -> None:
        """Raise UserError for an image of another size than annotated.

        Shape:
            pixels: (H, W, C).
        """
        height, width = pixels.shape[:2]
        check_size(name, self._sizes[image_id], (width, height), self.path)

    def category_ids(self, classes: Iterable[str]) -> list[int]:
        """The ids of classes.

        Raises:
            UserError: a class is not a category of the file.
        """
        classes = list(classes)
        for name in classes:
            if name not in self._categories:
                raise UserError(
                    f'the class {name!r} of the checkpoint is no category of {self.path}'
                )
        return [self._categories[name] for name in classes]

    def boxes(self, image_id: int) -> list[tuple[str, list[float]]]:
        """Class names and x, y, width, height; crowds are left out."""
        return [
            (self._names[box['category_id']], box['bbox'])
            for box in self._boxes.get(image_id, [])
            if not box['iscrowd']
        ]
