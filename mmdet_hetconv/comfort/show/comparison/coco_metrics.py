"""COCO's average precision of detections that are in memory."""

import io
from collections.abc import Sequence
from contextlib import redirect_stdout

from pycocotools.cocoeval import COCOeval

from ....workflow.metrics import Truth

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
        truth = Truth(annotations)
        found = truth.loadRes(truth.numbered(results))
        evaluation = COCOeval(truth, found, 'bbox')
        evaluation.params.imgIds = sorted(truth.images[number] for number in image_ids)
        evaluation.params.catIds = sorted(truth.getCatIds())
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {name: float(evaluation.stats[i]) for name, i in _STATS.items()}
