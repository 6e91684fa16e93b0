"""COCO's average precision of detections that are in memory."""

import copy
import io
from collections.abc import Sequence
from contextlib import redirect_stdout

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ..datasets.metrics import number_boxes

# Names of COCOeval.stats, those shown.
_STATS = {'AP': 0, 'AP50': 1, 'AP75': 2, 'AP small': 3, 'AP medium': 4, 'AP large': 5, 'AR100': 8}


def coco_metrics(
    annotations: dict, image_ids: Sequence[int], results: list[dict]
) -> dict[str, float]:
    """Evaluate boxes on some images of an annotation file.

    Args:
        annotations (dict): content of the file.
        image_ids (Sequence[int]): those that were detected in.
        results (list[dict]): in COCO's results format.

    Returns:
        dict[str, float]: by name; -1 where there is no box of that size.
    """
    with redirect_stdout(io.StringIO()):  # pycocotools prints
        truth = COCO()
        # pycocotools marks what it ignores in the entries themselves.
        truth.dataset = copy.deepcopy(annotations)
        number_boxes(truth)
        # loadRes() does not take an empty list.
        found = truth.loadRes(results) if results else COCO()
        evaluation = COCOeval(truth, found, 'bbox')
        evaluation.params.imgIds = sorted(image_ids)
        evaluation.params.catIds = sorted(truth.getCatIds())
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {name: float(evaluation.stats[i]) for name, i in _STATS.items()}
