"""COCO's metric for any ids, and for boxes that are to be ignored.

pycocotools stores the id of the box that a detection matches as a number, with 0 for none,
sorts ids of images and categories as float64, and overwrites the mark of ignored boxes.
Therefore it gets a renumbered copy of the annotations.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mmdet.datasets.api_wrappers import COCO
from mmdet.evaluation import CocoMetric
from mmengine.config import Config
from mmengine.fileio import dump, load
from mmengine.registry import METRICS

from .config.config_parts import type_name

_EVALUATORS = ('val_evaluator', 'test_evaluator')


class Truth(COCO):
    """The content of an annotation file with ids renumbered from 1.

    Boxes with ``ignore``, which difficult objects have, become crowds: pycocotools
    overwrites ``ignore`` (cocoapi issue 123).

    Attributes:
        images: new ids of the images by those in the file.
        categories: the same for the categories.
    """

    def __init__(self, content: Mapping[str, Any]):
        super().__init__()
        self.images, self.categories = (
            {entry['id']: number for number, entry in enumerate(content[key], 1)}
            for key in ('images', 'categories')
        )
        self.dataset = {
            **content,
            'images': [dict(image, id=self.images[image['id']]) for image in content['images']],
            'categories': [
                dict(category, id=self.categories[category['id']])
                for category in content['categories']
            ],
            'annotations': [
                dict(
                    box,
                    id=number,
                    image_id=self.images[box['image_id']],
                    category_id=self.categories[box['category_id']],
                    iscrowd=int(bool(box.get('iscrowd') or box.get('ignore'))),
                )
                for number, box in enumerate(content.get('annotations', ()), 1)
            ],
        }
        self.createIndex()

    def numbered(self, results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Results with the new ids in place of the file's."""
        return [
            dict(
                result,
                image_id=self.images[result['image_id']],
                category_id=self.categories[result['category_id']],
            )
            for result in results
        ]

    def loadRes(self, resFile: Any) -> COCO:  # noqa: N802, N803 (pycocotools' names)
        """As of pycocotools, but accepts no results at all."""
        if len(resFile):
            return super().loadRes(resFile)
        nothing = COCO()
        nothing.dataset = dict(self.dataset, annotations=[])
        nothing.createIndex()
        return nothing


@METRICS.register_module()
class NumberedCocoMetric(CocoMetric):
    """CocoMetric for any ids, ignored boxes, and runs without a single detection."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if self._coco_api is not None:
            self._coco_api = Truth(self._coco_api.dataset)

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        if self._coco_api is not None:
            numbers = self._coco_api.images
            data_samples = [dict(s, img_id=numbers[s['img_id']]) for s in data_samples]
        super().process(data_batch, data_samples)

    def compute_metrics(self, results: list) -> dict[str, float]:
        """As of mmdet; without an ann_file, the truth is taken from the samples each time."""
        if self._coco_api is not None:
            return super().compute_metrics(results)
        shown, found = zip(*results)
        with TemporaryDirectory() as folder:
            path = self.gt_to_coco_json(shown, self.outfile_prefix or f'{folder}/results')
            self._coco_api = Truth(load(path))
        numbers = self._coco_api.images
        found = [dict(result, img_id=numbers[result['img_id']]) for result in found]
        try:
            return super().compute_metrics([*zip(shown, found)])
        finally:
            self._coco_api = self.cat_ids = self.img_ids = None

    def results2json(self, results: Sequence[dict], outfile_prefix: str) -> dict:
        """As of mmdet; files that the user asked for get the ids of the annotation file."""
        files = super().results2json(results, outfile_prefix)
        if self.outfile_prefix is None or not isinstance(self._coco_api, Truth):
            return files
        self._own_files = TemporaryDirectory()
        images, categories = (
            {number: old for old, number in numbers.items()}
            for numbers in (self._coco_api.images, self._coco_api.categories)
        )
        for path in set(files.values()):
            content = load(path)
            dump(content, f'{self._own_files.name}/{Path(path).name}')
            for result in content:
                result['image_id'] = images[result['image_id']]
                result['category_id'] = categories[result['category_id']]
            dump(content, path)
        return {key: f'{self._own_files.name}/{Path(path).name}' for key, path in files.items()}


def use_own_metrics(cfg: Config, by_class: bool = False) -> None:
    """Replace CocoMetric in a config by :class:`NumberedCocoMetric`.

    Args:
        by_class: print the AP of each class, unless the config sets classwise.
    """
    for name in _EVALUATORS:
        evaluator = cfg.get(name) or []
        if isinstance(evaluator, dict):
            evaluator = [evaluator]
        for metric in evaluator:
            if type_name(metric) == 'CocoMetric':
                metric['type'] = NumberedCocoMetric.__name__
                if by_class:
                    metric.setdefault('classwise', True)
