"""How much two detectors disagree about an image.

    disagreement = 1 - sum of IoU over pairs / (pairs + unpaired / 2)

One minus the panoptic quality (Kirillov et al., CVPR 2019, arXiv:1801.00868)
of one's boxes with the other's as the truth: 0 for the same boxes, 1 if no
box of one has a partner in the other. It is symmetric.
"""

import torch
from mmdet.structures.bbox import bbox_overlaps
from torch import Tensor

# A pair has the same class and at least this IoU; panoptic quality's own.
MIN_IOU = 0.5


def disagreement(a: dict[str, Tensor], b: dict[str, Tensor], score_thr: float) -> float:
    """Between the detections of two detectors on one image.

    Args:
        a, b (dict): boxes (n, 4) as x1 y1 x2 y2, scores (n,), labels (n,);
            labels mean the same in both.
        score_thr (float): detections below are left out.
    """
    a, b = (
        {name: value[side['scores'] >= score_thr] for name, value in
         side.items()}
        for side in (a, b)
    )  # fmt: skip
    count = len(a['boxes']) + len(b['boxes'])
    if not count:
        return 0.0
    overlaps = bbox_overlaps(a['boxes'], b['boxes'])
    overlaps[a['labels'][:, None] != b['labels']] = 0
    shared = pairs = 0
    while overlaps.numel():
        best = overlaps.argmax()
        row, column = divmod(int(best), overlaps.shape[1])
        iou = float(overlaps[row, column])
        if iou < MIN_IOU:
            break
        shared += iou
        pairs += 1
        overlaps[row] = 0
        overlaps[:, column] = 0
    # pairs + unpaired / 2
    return 1 - shared / (count / 2)


def as_boxes(sample) -> dict[str, Tensor]:
    """What :func:`disagreement` needs of a DetDataSample."""
    found = sample.pred_instances
    return dict(boxes=torch.as_tensor(found.bboxes), scores=found.scores, labels=found.labels)
