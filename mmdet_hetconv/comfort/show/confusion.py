"""Which class a detector takes for which: a confusion matrix as a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.structures.bbox import bbox_overlaps
from mmengine.evaluator import BaseMetric
from mmengine.fileio import load
from torch import Tensor

# Detections of a lower score do not count.
SCORE = 0.3
# The least overlap of a detection with what it found.
IOU = 0.5


class ConfusionMatrix(BaseMetric):
    """Counts what was found for what, and draws it.

    Detections are taken in the order of their scores; each finds the box that it overlaps
    most and that none before it found: of its own class, as in COCO, and what finds none
    so, of another. The last row counts
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
        self.truth = {info['img_id']: [*info['instances']] for info in infos}
        for box in _left_out(dataset):
            x, y, width, height = box['bbox']
            label = dataset.cat2label.get(box['category_id'])
            if label is not None and box['image_id'] in self.truth:
                thing = dict(bbox=[x, y, x + width, y + height], bbox_label=label, ignore_flag=1)
                self.truth[box['image_id']].append(thing)

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


def _left_out(dataset: Any) -> list[dict[str, Any]]:
    """Boxes with ``ignore`` of a COCO file, which mmdet's data set leaves out."""
    if not hasattr(dataset, 'cat2label'):
        return []
    return [box for box in load(dataset.ann_file)['annotations'] if box.get('ignore')]


def match(
    boxes: Tensor, scores: Tensor, labels: Tensor, truth: Sequence[Mapping[str, Any]]
) -> list[tuple[int, int]]:
    """The label of the truth and of the detection, -1 for nothing.

    Shape:
        boxes (N, 4), scores and labels (N,).
    """
    order = [i for i in scores.argsort(descending=True).tolist() if scores[i] >= SCORE]
    there = torch.tensor([thing['bbox'] for thing in truth], dtype=torch.float).reshape(-1, 4)
    boxes = boxes.float().cpu()
    overlaps = bbox_overlaps(boxes, there)
    ignored = torch.tensor([bool(thing['ignore_flag']) for thing in truth], dtype=torch.bool)
    # As in COCO a detection need only lie inside of a crowd.
    overlaps[:, ignored] = bbox_overlaps(boxes, there[ignored], mode='iof')
    kinds = torch.tensor([thing['bbox_label'] for thing in truth], dtype=torch.long)
    # Of its own class first; then what is ignored, then of another class.
    own = kinds[None, :] == labels.cpu()[:, None]
    free = torch.ones(len(truth), dtype=torch.bool)
    pairs = []
    for may in (own & ~ignored, own & ignored, ~own & ~ignored, ~own & ignored):
        left = []
        for i in order:
            near = overlaps[i] * (may[i] & free)
            if not len(truth) or near.max() < IOU:
                left.append(i)
                continue
            best = int(near.argmax())
            if not ignored[best]:  # what is may be found more than once
                free[best] = False
                pairs.append((int(kinds[best]), int(labels[i])))
        order = left
    pairs += [(-1, int(labels[i])) for i in order]
    return pairs + [(int(kinds[j]), -1) for j in range(len(truth)) if free[j] and not ignored[j]]


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
