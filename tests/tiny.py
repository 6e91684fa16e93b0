"""Tiny data sets and a tiny detector, made where a test wants them."""

import json
from pathlib import Path

import cv2
import numpy as np

CLASSES = ('disc', 'bar')
SIZE = (64, 48)  # width, height
SPLITS = {'train': 6, 'val': 3}

CONFIG = """
_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['mmdet_hetconv'], allow_failed_imports=False)
model = dict(
    backbone=dict(
        depth=18,
        base_channels=16,
        frozen_stages=-1,
        norm_eval=False,
        init_cfg=None,
        conv_cfg=dict(type='HetConv', p=4),
    ),
    neck=dict(in_channels=[16, 32, 64, 128], out_channels=16),
    rpn_head=dict(in_channels=16, feat_channels=16),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=16),
        bbox_head=dict(in_channels=16, fc_out_channels=32),
    ),
    train_cfg=dict(
        rpn_proposal=dict(max_per_img=32), rcnn=dict(sampler=dict(num=16))
    ),
    test_cfg=dict(rpn=dict(max_per_img=32), rcnn=dict(score_thr=0.0)),
)
scale = (64, 48)
train_dataloader = dict(num_workers=0, persistent_workers=False)
val_dataloader = dict(num_workers=0, persistent_workers=False)
test_dataloader = dict(num_workers=0, persistent_workers=False)
train_cfg = dict(max_epochs=2)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=4)
]
default_hooks = dict(logger=dict(interval=1))
randomness = dict(seed=7, deterministic=True)
"""
SCALES = (
    'train_dataloader.dataset.pipeline.2.scale=(64,48)',
    'val_dataloader.dataset.pipeline.1.scale=(64,48)',
    'test_dataloader.dataset.pipeline.1.scale=(64,48)',
)


def write_config(path: Path, extra: str = '') -> Path:
    path.write_text(CONFIG + extra)
    return path


def draw(path: Path, number: int) -> list[tuple[str, list[int]]]:
    """Write one image; the names and x1 y1 x2 y2 of what is on it."""
    random = np.random.default_rng(number)
    image = random.integers(0, 60, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
    image[12:30, 6:24] = (40, 40, 220)
    image[20:26, 34:60] = (40, 220, 40)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image)
    return [('disc', [6, 12, 24, 30]), ('bar', [34, 20, 60, 26])]


def write_coco(
    root: Path, names: dict[str, str] | None = None, folder: str = '{0}2017', masks: bool = False
) -> Path:
    """A COCO-layout data set; names: annotation file of each split."""
    names = names or {split: f'annotations/instances_{split}2017.json' for split in SPLITS}
    for split, ann_file in names.items():
        images, annotations = [], []
        for number in range(SPLITS.get(split, 3)):
            file_name = f'{split}_{number}.jpg'
            things = draw(root / folder.format(split) / file_name, number)
            images.append(dict(id=number + 1, file_name=file_name, width=SIZE[0], height=SIZE[1]))
            for name, (x1, y1, x2, y2) in things:
                box = dict(
                    id=len(annotations) + 1,
                    image_id=number + 1,
                    category_id=CLASSES.index(name) + 3,
                    bbox=[x1, y1, x2 - x1, y2 - y1],
                    area=(x2 - x1) * (y2 - y1),
                    iscrowd=0,
                )
                if masks:
                    box['segmentation'] = [[x1, y1, x2, y1, x2, y2, x1, y2]]
                annotations.append(box)
        path = root / ann_file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            json.dumps(
                dict(
                    images=images,
                    annotations=annotations,
                    categories=[
                        dict(id=number + 3, name=name) for number, name in enumerate(CLASSES)
                    ],
                )
            )
        )
    return root


def write_voc(
    root: Path, splits: tuple[str, ...] = ('train', 'val'), classes: tuple[str, ...] = CLASSES
) -> Path:
    """A VOC-layout data set, Annotations/ and all directly in root.

    The first image of every split has a box that is a single point.
    """
    lists = root / 'ImageSets' / 'Main'
    lists.mkdir(parents=True)
    (root / 'Annotations').mkdir()
    for split in splits:
        ids = [f'{split}_{n}' for n in range(SPLITS.get(split, 3))]
        (lists / f'{split}.txt').write_text('\n'.join(ids) + '\n')
        for number, image_id in enumerate(ids):
            things = draw(root / 'JPEGImages' / f'{image_id}.jpg', number)
            if number == 0:
                things.append(('disc', [9, 9, 9, 9]))
            write_xml(
                root / 'Annotations' / f'{image_id}.xml',
                [(classes[CLASSES.index(name) % len(classes)], box) for name, box in things],
            )
    return root


def write_xml(path: Path, things: list[tuple[str, list[int]]]) -> None:
    objects = ''.join(
        f'<object><name>{name}</name><difficult>0</difficult><bndbox>'
        f'<xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax>'
        f'<ymax>{y2}</ymax></bndbox></object>'
        for name, (x1, y1, x2, y2) in things
    )
    path.write_text(
        f'<annotation><size><width>{SIZE[0]}</width>'
        f'<height>{SIZE[1]}</height><depth>3</depth></size>'
        f'{objects}</annotation>'
    )
