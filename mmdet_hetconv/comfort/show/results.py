"""Detections in the results format of COCO."""

from collections.abc import Sequence
from pathlib import PurePosixPath

from mmdet.structures import DetDataSample
from mmdet.structures.mask import encode_mask_results


def coco_results(
    sample: DetDataSample, image_id: int | str, category_ids: Sequence[int]
) -> list[dict]:
    """One entry for each detection, of any score.

    Args:
        sample (DetDataSample): on the CPU.
        image_id (int | str): of its image.
        category_ids (Sequence[int]): by label.

    Returns:
        list[dict]: image_id, category_id, bbox (x, y, width, height in
        pixels), score, and segmentation (RLE) where there are masks.
    """
    found = sample.pred_instances
    entries = []
    for (x1, y1, x2, y2), score, label in zip(
        found.bboxes.tolist(), found.scores.tolist(), found.labels.tolist()
    ):
        entries.append(
            dict(
                image_id=image_id,
                category_id=category_ids[label],
                bbox=[round(value, 3) for value in (x1, y1, x2 - x1, y2 - y1)],
                score=round(score, 5),
            )
        )
    if 'masks' in found:
        for entry, mask in zip(entries, encode_mask_results(found.masks.numpy())):
            mask['counts'] = mask['counts'].decode()
            entry['segmentation'] = mask
    return entries


def default_image_id(name: str) -> int | str:
    """The number in an image's name, as COCO names its own; else the name.

    Example:
        >>> default_image_id('000000000139.jpg'), default_image_id('a/b.jpg')
        (139, 'a/b.jpg')
    """
    stem = PurePosixPath(name).stem
    return int(stem) if stem.isdecimal() else name
