"""How far a converted detector's predictions are from the dense one's.

The relative error of raw scores says little: nearly all anchors are background,
and its scores are large and alike. So the classes' probabilities are compared,
and the boxes where the dense detector sees an object.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# How much the boxes weigh beside the scores: as much as four sides of boxes whose
# distances are like the dense ones' mean. By the squared error, once, an SSD300
# found 1.2 points of mAP less (benchmarks/NOTES.md).
BOXES = 4.0


def is_predictor(module: nn.Module) -> bool:
    """One of mmdet's dense heads: what they return are levels of scores, boxes, ..."""
    known = ('cls_out_channels', 'use_sigmoid_cls', 'prior_generator')
    return all(hasattr(module, attribute) for attribute in known)


def find_predictors(model: nn.Module) -> list[str]:
    """Names of the dense heads."""
    return [name for name, module in model.named_modules() if is_predictor(module)]


def prediction_errors(head: Any, het: object, dense: object) -> dict[str, Tensor]:
    """Of what a head returned, for the converted and for the dense detector.

    scores: the Kullback-Leibler divergence of the class probabilities from the
    dense ones, summed over the anchors and divided by the number of objects
    that the dense detector expects there, at least one. boxes: |het - dense| / |dense|,
    sums over the anchors, weighted by the dense probability of an object, times 4.

    Args:
        head: one that :func:`is_predictor` accepts.
        het, dense: tuples of lists of tensors (B, anchors x classes, H, W),
            (B, anchors x coordinates, H, W), ...; of anything else nothing is
            compared.
    """
    mine, theirs = _by_anchor(head, het), _by_anchor(head, dense)
    if [x.shape for x in mine] != [x.shape for x in theirs] or not mine:
        return {}
    distance, weight = _divergence(mine[0], theirs[0], head.use_sigmoid_cls)
    errors = dict(scores=distance.sum() / weight.sum().clamp_min(1))
    if len(mine) > 1:
        length = (weight * theirs[1].abs().sum(1)).sum()
        error = (weight * (mine[1] - theirs[1]).abs().sum(1)).sum()
        errors['boxes'] = BOXES * error / length.clamp_min(torch.finfo(length.dtype).tiny)
    return errors


def _by_anchor(head: Any, outputs: object) -> list[Tensor]:
    """Scores (N, classes) and, if there are any, boxes (N, coordinates) of all levels."""
    if not isinstance(outputs, (tuple, list)) or not outputs or not _are_levels(outputs[0]):
        return []
    anchors = head.prior_generator.num_base_priors
    channels = [count * head.cls_out_channels for count in anchors]
    if [scores.shape[1] for scores in outputs[0]] != channels:
        return []  # as in the stages of a cascade RPN, whose boxes come first
    found = [_flat(outputs[0], anchors)]
    if len(outputs) > 1 and _are_levels(outputs[1]) and len(outputs[1]) == len(anchors):
        fits = all(
            boxes.shape[1] % count == 0 and boxes.shape[2:] == scores.shape[2:]
            for boxes, scores, count in zip(outputs[1], outputs[0], anchors)
        )
        if fits:
            found.append(_flat(outputs[1], anchors))
    return found


def _are_levels(value: object) -> bool:
    return (
        isinstance(value, (tuple, list))
        and len(value) > 0
        and all(isinstance(level, Tensor) and level.dim() == 4 for level in value)
    )


def _flat(levels: Sequence[Tensor], anchors: Sequence[int]) -> Tensor:
    """A row for each anchor of each image and position."""
    rows = [
        level.float().permute(0, 2, 3, 1).reshape(-1, level.shape[1] // count)
        for level, count in zip(levels, anchors)
    ]
    return torch.cat(rows)


def _divergence(het: Tensor, dense: Tensor, sigmoid: bool) -> tuple[Tensor, Tensor]:
    """Of each anchor, and the dense probability that it has an object."""
    if sigmoid:
        p = dense.sigmoid()
        distance = p * (F.logsigmoid(dense) - F.logsigmoid(het))
        distance = distance + (1 - p) * (F.logsigmoid(-dense) - F.logsigmoid(-het))
        return distance.sum(1), p.amax(1)
    # The background comes last.
    logs = dense.log_softmax(1)
    distance = logs.exp() * (logs - het.log_softmax(1))
    return distance.sum(1), 1 - logs[:, -1].exp()
