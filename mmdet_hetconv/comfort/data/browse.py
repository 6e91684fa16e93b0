"""A sheet of training images with their boxes, and a table of the boxes of each class."""

import math
import random
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import cv2
import numpy as np
import torch
from mmdet.registry import VISUALIZERS
from mmdet.structures import DetDataSample
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.structures import InstanceData
from mmengine.visualization import Visualizer

from ...utils.announce import announce
from ...utils.files import check_writable_file, write_whole
from ...utils.table import format_table
from ...workflow.config.config_parts import leaf_datasets, read_infos
from .checks.check_data import check_data
from .own_data import use_own_data

# Longer side of a picture on the sheet, pixels.
TILE = 320


def browse(data_root: str, out: str = 'browse.png', *, number: int = 16, seed: int = 0) -> Path:
    """Draw training images with their boxes on one sheet, and count the boxes.

    Args:
        data_root: a data set in any known layout.
        out: file of the sheet.
        number: of images, drawn from all by `seed`.

    Returns:
        Path: of the sheet.

    Raises:
        UserError: see :func:`use_own_data` and :func:`check_data`; the picture cannot
            be written.
    """
    register_all_modules(init_default_scope=True)
    path = check_writable_file(out, '--out')
    loader = dict(dataset=dict(type='CocoDataset'))
    cfg = Config(dict(model={}, train_dataloader=loader, train_cfg=dict(max_epochs=1)))
    use_own_data(cfg, data_root)
    check_data(cfg, ('train',))
    leaves = [leaf for _, leaf in leaf_datasets(cfg.train_dataloader.dataset, '')]
    samples = [info for leaf in leaves for info in read_infos(leaf)]
    metainfo = leaves[0].metainfo
    announce('\n' + count_boxes(samples, metainfo['classes']))
    chosen = random.Random(seed).sample(samples, min(number, len(samples)))
    write_whole(path, draw_sheet(chosen, metainfo))
    announce(f'{path} written: {len(chosen)} of the training images')
    return path


def count_boxes(samples: Sequence[dict], classes: Sequence[str]) -> str:
    """A table of classes: images, boxes, and the sizes of the boxes in pixels."""
    rows = []
    for label, name in enumerate(classes):
        by_image = [
            [thing['bbox'] for thing in sample['instances'] if thing['bbox_label'] == label]
            for sample in samples
        ]
        sides = [
            max(0.0, (x2 - x1) * (y2 - y1)) ** 0.5 for boxes in by_image for x1, y1, x2, y2 in boxes
        ]
        spread = [min(sides), median(sides), max(sides)] if sides else []
        sizes = [f'{side:.0f}' for side in spread] or [''] * 3
        rows.append([name, sum(map(bool, by_image)), len(sides), *sizes])
    bare = sum(not sample['instances'] for sample in samples)
    table = format_table(('class', 'images', 'boxes', 'smallest', 'median', 'largest'), rows)
    return (
        f'{table}\n\n{len(samples)} images, {bare} without boxes; sizes are roots of areas, '
        'in pixels.'
    )


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
