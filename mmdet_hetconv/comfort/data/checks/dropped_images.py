"""Training images that mmdet drops silently."""

from collections.abc import Sequence

from ....utils.errors import UserError
from ..annotations import Annotations


def describe_dropped(
    dataset: dict, path: str, found: Annotations, classes: Sequence[str]
) -> str | None:
    """Say how many images a data set drops, and why.

    Args:
        dataset: the config of a CocoDataset, VOCDataset or XMLDataset.
        path: its key.
        found: content of its annotation file.
        classes: those of the config.

    Returns:
        str: a sentence; None if all images are trained on. A VOC image without a size
        in its annotation counts as large enough.

    Raises:
        UserError: no image is left.
    """
    rules = dataset.get('filter_cfg') or {}
    if dataset.get('test_mode'):
        return None
    min_size = rules.get('min_size', 0)
    empty = small = 0
    for content in found.contents:
        if rules.get('filter_empty_gt') and not content.classes & set(classes):
            empty += 1
        elif content.size and min(content.size) < min_size:
            small += 1
    reasons = []
    if empty:
        reasons.append(f'{empty} without a box of the classes')
    if small:
        reasons.append(f'{small} below min_size={min_size}')
    if not reasons:
        return None
    told = (
        f'{path}: {empty + small} of {len(found.images)} images of '
        f'{found.path} are not trained on: {", ".join(reasons)}'
    )
    if empty + small == len(found.images):
        raise UserError(told)
    return told


def check_anything_to_learn(found: Sequence[Annotations], classes: Sequence[str]) -> None:
    """Refuse training sets without a single box to learn from.

    Args:
        found: content of the annotation files.
        classes: those of the config.

    Raises:
        UserError: all boxes are of crowds, difficult, or of no use.
    """
    contents = [c for annotations in found for c in annotations.contents]
    if not any(content.learnable & set(classes) for content in contents):
        files = ', '.join(str(annotations.path) for annotations in found)
        raise UserError(
            f'{files}: no box to learn from, all are marked as crowd or '
            'difficult, smaller than a pixel, or of other classes'
        )
