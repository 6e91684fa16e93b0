"""Which class a detector takes for which: a confusion matrix as a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.structures.bbox import bbox_overlaps
from mmengine.evaluator import BaseMetric
from torch import Tensor

# Detections of a lower score do not count.
SCORE = 0.3
# The least overlap of a detection with what it found.
IOU = 0.5


class ConfusionMatrix(BaseMetric):
    """Counts what was found for what, and draws it.

    Detections are taken in the order of their scores; each finds the box that it overlaps
    most and that none before it found, of whatever class. The last row counts
    detections of nothing, the last column boxes that were not found. Crowds and
    difficult objects count neither way.

    Args:
        dataset: of the evaluation; its boxes are those of the original image.
        path: of the PNG.
    """

    def __init__(self, dataset: Any, path: Path):
        super().__init__()
        self.path = path
        self.classes: Sequence[str] = dataset.metainfo['classes']
        infos = (dataset.get_data_info(number) for number in range(len(dataset)))
        self.truth = {info['img_id']: info['instances'] for info in infos}

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any]]) -> None:
        for sample in data_samples:
            found = sample['pred_instances']
            pairs = match(
                found['bboxes'], found['scores'], found['labels'], self.truth[sample['img_id']]
            )
            self.results.append(pairs)

    def compute_metrics(self, results: list[list[tuple[int, int]]]) -> dict[str, float]:
        counts = np.zeros([len(self.classes) + 1] * 2, dtype=int)
        for pairs in results:
            for place in pairs:
                counts[place] += 1
        draw(counts, self.classes, self.path)
        return {}


def match(
    boxes: Tensor, scores: Tensor, labels: Tensor, truth: Sequence[Mapping[str, Any]]
) -> list[tuple[int, int]]:
    """The label of the truth and of the detection, -1 for nothing.

    Shape:
        boxes (N, 4), scores and labels (N,).
    """
    order = [i for i in scores.argsort(descending=True).tolist() if scores[i] >= SCORE]
    there = torch.tensor([thing['bbox'] for thing in truth], dtype=torch.float).reshape(-1, 4)
    overlaps = bbox_overlaps(boxes.float().cpu(), there)
    taken: set[int] = set()
    pairs = []
    for i in order:
        near = [j for j in range(len(truth)) if overlaps[i, j] >= IOU and j not in taken]
        if not near:
            pairs.append((-1, int(labels[i])))
            continue
        best = max(near, key=lambda j: float(overlaps[i, j]))
        if truth[best]['ignore_flag']:
            continue  # it may be found more than once
        taken.add(best)
        pairs.append((truth[best]['bbox_label'], int(labels[i])))
    for j, thing in enumerate(truth):
        if j not in taken and not thing['ignore_flag']:
            pairs.append((thing['bbox_label'], -1))
    return pairs


def draw(counts: np.ndarray, classes: Sequence[str], path: Path) -> None:
    """Shares of each row, and the counts where there is room for them."""
    from matplotlib.figure import Figure

    size = len(counts)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = 3 + 0.45 * min(size, 40)
    figure = Figure(figsize=(side, side), layout='constrained')
    axes = figure.subplots()
    axes.imshow(shares, cmap='Blues', vmin=0, vmax=1)
    rows, columns = ([*classes, end] for end in ('nothing', 'not found'))
    axes.set_xticks(range(size), columns, rotation=90)
    axes.set_yticks(range(size), rows)
    axes.set(
        xlabel='detected as',
        ylabel='annotated as',
        title=f'score at least {SCORE}, IoU at least {IOU}',
    )
    if size <= 25:
        for row in range(size):
            for column in range(size):
                if counts[row, column]:
                    dark = 'white' if shares[row, column] > 0.5 else 'black'
                    text = dict(ha='center', va='center', fontsize=8, color=dark)
                    axes.text(column, row, counts[row, column], **text)
    figure.savefig(path, dpi=120)
