"""COCO's metric for annotation files as they are found.

pycocotools notes for every detection the id of the box that it matches, as a
number and with 0 for none. A box with the id 0 is so never found, and an id
that is a text cannot be noted. Tools other than COCO's own count from 0.
"""

from mmdet.evaluation import CocoMetric
from mmengine.config import Config
from mmengine.registry import METRICS
from pycocotools.coco import COCO

from .config_parts import type_name

_EVALUATORS = ('val_evaluator', 'test_evaluator')


def number_boxes(truth: COCO) -> None:
    """Number the boxes from 1, in place; nothing else refers to their ids."""
    for number, box in enumerate(truth.dataset.get('annotations', ()), 1):
        box['id'] = number
    truth.createIndex()


@METRICS.register_module()
class NumberedCocoMetric(CocoMetric):
    """CocoMetric, right for boxes of any ids.

    Without an ann_file mmdet makes one of the data set, numbered from 1.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if self._coco_api is not None:
            number_boxes(self._coco_api)


def use_own_metrics(cfg: Config, by_class: bool = False) -> None:
    """Evaluate by this module, where a config has mmdet's CocoMetric.

    Args:
        by_class: print AP of each class, too, unless the config says otherwise.
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
