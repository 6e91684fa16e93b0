"""Training images with their boxes, and what there is of each class."""

import math
from collections.abc import Iterator, Sequence
from statistics import median

import cv2
import numpy as np
import torch
from mmdet.registry import VISUALIZERS
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from mmengine.visualization import Visualizer

from ...utils.table import format_table

# Of one picture on the sheet, pixels.
TILE = 320


def count_boxes(samples: Sequence[dict], classes: Sequence[str]) -> str:
    """A table of classes: images, boxes, and sizes of these in pixels."""
    rows = []
    for label, name in enumerate(classes):
        sides = [
            max(0.0, (x2 - x1) * (y2 - y1)) ** 0.5
            for sample in samples
            for x1, y1, x2, y2 in _boxes(sample, label)
        ]
        images = sum(any(True for _ in _boxes(sample, label)) for sample in samples)
        spread = (f'{min(sides):.0f}', f'{median(sides):.0f}', f'{max(sides):.0f}') if sides else ()
        rows.append([name, images, len(sides), *(spread or ('', '', ''))])
    bare = sum(not sample['instances'] for sample in samples)
    head = ('class', 'images', 'boxes', 'smallest', 'median', 'largest')
    table = format_table(head, rows)
    return (
        f'{table}\n\n{len(samples)} images, {bare} without boxes; sizes are roots of areas, '
        'in pixels.'
    )


def _boxes(sample: dict, label: int) -> Iterator[list[float]]:
    return (thing['bbox'] for thing in sample['instances'] if thing['bbox_label'] == label)


def draw_sheet(samples: Sequence[dict], metainfo: dict) -> bytes:
    """A PNG of some images, boxes drawn as mmdet draws them.

    Args:
        metainfo: classes and palette.
    """
    visualizer = VISUALIZERS.build(dict(type='DetLocalVisualizer', name='browse'))
    visualizer.dataset_meta = metainfo
    tiles = [_tile(visualizer, sample) for sample in samples]
    columns = math.ceil(math.sqrt(len(tiles)))
    rows = -(-len(tiles) // columns)
    height, width = (max(tile.shape[axis] for tile in tiles) for axis in (0, 1))
    sheet = np.full((rows * height, columns * width, 3), 255, np.uint8)
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        y, x = row * height, column * width
        sheet[y : y + tile.shape[0], x : x + tile.shape[1]] = tile
    _, data = cv2.imencode('.png', sheet[..., ::-1])
    return data.tobytes()


def _tile(visualizer: Visualizer, sample: dict) -> np.ndarray:
    pixels = cv2.imdecode(np.fromfile(sample['img_path'], np.uint8), cv2.IMREAD_COLOR)
    scale = TILE / max(pixels.shape[:2])
    size = [max(1, round(scale * edge)) for edge in pixels.shape[1::-1]]
    pixels = np.ascontiguousarray(cv2.resize(pixels, size)[..., ::-1])
    things = sample['instances']
    boxes = torch.tensor([thing['bbox'] for thing in things]).reshape(-1, 4) * scale
    labels = torch.tensor([thing['bbox_label'] for thing in things], dtype=torch.long)
    annotated = DetDataSample(gt_instances=InstanceData(bboxes=boxes, labels=labels))
    visualizer.add_datasample('tile', pixels, annotated, draw_pred=False)
    return visualizer.get_image()
