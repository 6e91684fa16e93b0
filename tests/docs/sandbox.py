"""A folder in which the documentation's commands run as they stand.

It looks like a checkout with COCO and weights in it. The configs have the
names and the structure of the zoo's, but few channels and small images; "COCO"
is a dozen drawn images with COCO's 80 names; the weights are random.
"""

import json
import runpy
import shutil
from pathlib import Path

import torch
from mmdet.datasets import CocoDataset
from mmengine.config import Config, ConfigDict

from mmdet_hetconv.analysis.config import build_detector

from .commands import ROOT

SCALE = (160, 128)
NARROWER = 4  # times
# Proposals and RoIs, which take most of a small detector's time.
FEWER = dict(nms_pre=100, max_per_img=20, num=32)
WIDTHS = ('in_channels', 'out_channels', 'feat_channels', 'fc_out_channels')
CONFIGS = (
    *('faster_rcnn_het_r18_scratch', 'faster_rcnn_het_r50'),
    *('faster_rcnn_het_r50_full', 'faster_rcnn_het_r50_scratch'),
    *('faster_rcnn_het_r50_gwc', 'faster_rcnn_het_r50_dwc'),
    'retinanet_het_r50',
)
# What a reader puts in: CONFIG CHECKPOINT DIR stand for these.
READERS = {
    'CONFIG': 'configs/retinanet_het_r50.py',
    'CHECKPOINT': 'trained.pth',
    'CKPT': 'trained.pth',
    'DIR': 'data/own',
}


def narrower(width):
    """A number of channels, or several."""
    if isinstance(width, list):
        return list(map(narrower, width))
    return width // NARROWER


def shrink(value) -> None:
    """Make a config one for seconds: few channels and boxes, small images."""
    if isinstance(value, list | tuple):
        for item in value:
            shrink(item)
    elif isinstance(value, ConfigDict):
        if 'depth' in value:
            value['base_channels'] = 64 // NARROWER
        for key, item in value.items():
            if key in WIDTHS:
                value[key] = narrower(item)
            elif key in FEWER:
                value[key] = min(item, FEWER[key])
            elif key in ('scale', 'img_scale') and isinstance(item, tuple):
                value[key] = SCALE
            elif key == 'init_cfg' and item and item.get('type') == ('Pretrained'):
                value[key] = None
                # From scratch: nothing frozen, batch norms that learn.
                value.update(frozen_stages=-1, norm_eval=False)
            elif key == 'num_workers':
                value.update(num_workers=0, persistent_workers=False)
            else:
                shrink(item)


def write_config(source: Path | str, target: Path) -> Config:
    cfg = Config.fromfile(source)
    shrink(cfg._cfg_dict)
    cfg.dump(target)
    return cfg


def draw_coco(shapes: Path, folder: Path) -> None:
    """The drawn images where mmdet expects COCO, with COCO's categories."""
    names = CocoDataset.METAINFO['classes']
    (folder / 'annotations').mkdir(parents=True)
    for split in ('train', 'val'):
        (folder / f'{split}2017').symlink_to(shapes / 'images')
        file = f'annotations/instances_{split}'
        coco = json.loads((shapes / f'{file}.json').read_text())
        coco['categories'] = [dict(id=index + 1, name=name) for index, name in enumerate(names)]
        (folder / f'{file}2017.json').write_text(json.dumps(coco))


def save_weights(cfg: Config, path: Path, classes: tuple[str, ...]) -> None:
    """Random weights as a checkpoint of mmengine."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    model = build_detector(cfg.model)
    meta = dict(dataset_meta=dict(classes=classes))
    torch.save(dict(state_dict=model.state_dict(), meta=meta), path)


def make_sandbox(folder: Path) -> None:
    for name in ('tools', 'benchmarks', 'docs', 'requirements'):
        (folder / name).symlink_to(ROOT / name)
    shapes = runpy.run_path(str(ROOT / 'tools' / 'demo' / 'make_shapes.py'))
    drawn = folder / 'data' / 'drawn'
    shapes['make_data_set'](drawn, train=8, val=4, seed=0)
    draw_coco(drawn / 'coco', folder / 'data' / 'coco')
    for name in ('data/own', 'my_data'):
        (folder / name).symlink_to(drawn / 'coco')
    shutil.copytree(drawn / 'coco' / 'images', folder / 'my_photos')

    (folder / 'configs').mkdir()
    cfgs = {
        name: write_config(ROOT / 'configs' / f'{name}.py', folder / 'configs' / f'{name}.py')
        for name in CONFIGS
    }
    # That one is small as it is.
    small = Config.fromfile(ROOT / 'configs' / 'faster_rcnn_het_r18_small.py')
    small.dump(folder / 'configs' / 'faster_rcnn_het_r18_small.py')
    names = CocoDataset.METAINFO['classes']
    save_weights(cfgs['retinanet_het_r50'], folder / 'trained.pth', names)

    stock = folder / 'stock.py'
    stock.write_text("_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'\n")
    (folder / 'dense').mkdir()
    cfg = write_config(stock, folder / 'dense' / 'faster-rcnn_r50_fpn_1x_coco.py')
    shutil.copy(folder / 'dense' / 'faster-rcnn_r50_fpn_1x_coco.py', folder / 'dense.py')
    name = 'faster_rcnn_r50_fpn_1x_coco_20200130-047c8118.pth'
    save_weights(cfg, folder / 'dense' / name, names)
    cfg.model.roi_head.bbox_head.num_classes = len(shapes['CLASSES'])
    path = folder / 'work_dirs' / 'dense' / 'epoch_12.pth'
    save_weights(cfg, path, shapes['CLASSES'])
