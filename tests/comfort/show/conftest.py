"""A heterogeneous and a dense detector, drawn at random, and pictures."""

import gc
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config

from mmdet_hetconv.analysis import build_detector
from tests import tiny
from tests.tools.conftest import fresh_process  # noqa: F401

DENSE = "model['backbone']['conv_cfg'] = None\n"


@pytest.fixture(scope='package')
def world(tmp_path_factory):
    """Paths: data set, configs and checkpoints.

    The configs have the 80 classes of COCO, the checkpoints two.
    """
    from mmdet.utils import register_all_modules

    register_all_modules()
    path = tmp_path_factory.mktemp('apps')
    coco = tiny.write_coco(path / 'coco')
    found = dict(
        path=path, images=coco / 'val2017', ann_file=coco / 'annotations' / 'instances_val2017.json'
    )
    for number, (name, extra) in enumerate((('het', ''), ('dense', DENSE))):
        extra += "test_dataloader['dataset'] = dict(pipeline=[\n"
        extra += "    dict(type='LoadImageFromFile'),\n"
        extra += "    dict(type='Resize', scale=(64, 48), keep_ratio=True),\n"
        extra += "    dict(type='PackDetInputs'),\n"
        extra += '])\n'
        config = tiny.write_config(path / f'{name}.py', extra)
        cfg = Config.fromfile(config)
        cfg.model.roi_head.bbox_head.num_classes = 2
        torch.manual_seed(number)
        model = build_detector(cfg.model)
        # Random detectors are of one mind about every region otherwise.
        torch.nn.init.normal_(model.roi_head.bbox_head.fc_cls.weight, std=1.0)
        meta = dict(dataset_meta=dict(classes=tiny.CLASSES))
        torch.save(dict(state_dict=model.state_dict(), meta=meta), path / f'{name}.pth')
        found[name] = (config, path / f'{name}.pth')
    gc.freeze()  # mmengine collects garbage for every data set it builds
    yield SimpleNamespace(**found)
    gc.unfreeze()
