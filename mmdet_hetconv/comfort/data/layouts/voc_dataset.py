"""A data set of VOC's layout as other tools write it.

XMLDataset of mmdet expects images named .jpg, and whole numbers as sizes.
"""

import math
from pathlib import Path

from mmdet.datasets import VOCDataset
from mmdet.registry import DATASETS

from ....utils.errors import UserError
from ....utils.images import images_below
from ..image_sizes import size_of
from ..voc import read_list, read_objects, read_size


class ImageNames:
    """The file names of the images in a folder, by the ids in image lists.

    Args:
        folder: of the images; subfolders count, too.
    """

    def __init__(self, folder: str | Path):
        self._folder = Path(folder)
        self._found: dict[str, list[str]] = {}
        for path in images_below(folder):
            path = path.relative_to(folder)
            image_id = path.with_suffix('').as_posix()
            self._found.setdefault(image_id, []).append(str(path))

    def __call__(self, image_id: str) -> str:
        """The name of an image: its .jpg, unless there is only another one.

        Raises:
            UserError: several images of other formats have the id.
        """
        usual = f'{image_id}.jpg'
        names = sorted(self._found.get(image_id, [usual]))
        if usual in names:
            return usual
        if len(names) > 1:
            raise UserError(
                f'{self._folder} has {len(names)} images {image_id}: {", ".join(names)}'
            )
        return names[0]


@DATASETS.register_module()
class AnyImageVOCDataset(VOCDataset):
    """VOCDataset for images of any format, and all annotations that :mod:`.voc` reads.

    A folder named VOC2007 may hold other classes than VOC's: its data set is not marked
    as VOC2007, for which VOCMetric prints VOC's twenty names.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        if tuple(self._metainfo['classes']) != self.METAINFO['classes']:
            self._metainfo['dataset_type'] = None

    def load_data_list(self) -> list[dict]:
        self.cat2label = {name: number for number, name in enumerate(self._metainfo['classes'])}
        name_of = ImageNames(Path(self.sub_data_root, self.img_subdir))
        return [
            self._info(image_id, Path(self.sub_data_root, self.img_subdir, name_of(image_id)))
            for image_id in read_list(Path(self.ann_file))
        ]

    def _info(self, image_id: str, image: Path) -> dict:
        """As of XMLDataset, but read by the checking reader."""
        xml = Path(self.sub_data_root, self.ann_subdir, f'{image_id}.xml')
        width, height = read_size(xml) or size_of(image)
        instances = []
        for name, box, difficult in read_objects(xml, (width, height)):
            if name in self.cat2label:
                left, top, right, bottom = (int(edge) - 1 for edge in box)
                small = min(right - left, bottom - top) < (self.bbox_min_size or -math.inf)
                instances.append(
                    dict(
                        ignore_flag=int(difficult or small),
                        bbox=[left, top, right, bottom],
                        bbox_label=self.cat2label[name],
                    )
                )
        return dict(
            img_path=str(image),
            img_id=image_id,
            xml_path=str(xml),
            height=height,
            width=width,
            instances=instances,
        )


VOC_DATASETS = ('VOCDataset', 'XMLDataset', AnyImageVOCDataset.__name__)
