"""Images of the VOC layout, whatever format they have.

XMLDataset of mmdet takes every image for a .jpg, in small letters.
"""

from pathlib import Path

from mmdet.datasets import VOCDataset
from mmdet.registry import DATASETS

from ..utils.errors import UserError
from .images import images_below


class ImageNames:
    """The file names of a folder's images, by what stands in image lists.

    Args:
        folder: of the images; those in folders inside are found, too.
    """

    def __init__(self, folder: str | Path):
        self._folder = Path(folder)
        self._found: dict[str, list[str]] = {}
        for path in images_below(folder):
            path = path.relative_to(folder)
            image_id = path.with_suffix('').as_posix()
            self._found.setdefault(image_id, []).append(str(path))

    def __call__(self, image_id: str) -> str:
        """The name of an image; the .jpg if it is there, or none is.

        Raises:
            UserError: several images of other endings have the name.
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
    """VOCDataset with images of any format, named in any letter case.

    Unlike there, a folder named VOC2007 may hold other classes than VOC's:
    VOCMetric prints VOC's twenty names for what is marked as VOC2007.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        if tuple(self._metainfo['classes']) != self.METAINFO['classes']:
            self._metainfo['dataset_type'] = None

    def load_data_list(self) -> list[dict]:
        self._name_of = ImageNames(Path(self.sub_data_root, self.img_subdir))
        infos = super().load_data_list()
        del self._name_of
        return infos

    def parse_data_info(self, img_info: dict) -> dict:
        name = self._name_of(img_info['img_id'])
        file_name = str(Path(self.img_subdir, name))
        return super().parse_data_info({**img_info, 'file_name': file_name})


VOC_DATASETS = ('VOCDataset', 'XMLDataset', AnyImageVOCDataset.__name__)
