"""Checks of configs and models that do not end in an error."""

import json
import logging

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from torch import nn

from mmdet_hetconv.comfort.data.checks import check_data, classes
from mmdet_hetconv.comfort.training import check_config as check_config_module
from mmdet_hetconv.comfort.training.check_config import check_config
from mmdet_hetconv.layers import HetConv2d
from mmdet_hetconv.utils.announce import is_first_process
from mmdet_hetconv.utils.errors import UserError
from mmdet_hetconv.workflow.config import preflight
from tests import tiny


@pytest.fixture
def announced(monkeypatch):
    """Messages and levels."""
    found = []
    for module in (preflight, check_config_module, check_data, classes):
        monkeypatch.setattr(
            module, 'announce', lambda text, level=logging.INFO: found.append((text, level))
        )
    return found


def model_with(backbone):
    model = nn.Module()
    model.backbone = backbone
    return model


@pytest.mark.parametrize(
    'frozen, norm_eval, init_cfg, load_from, warned',
    [
        (1, True, None, None, True),
        (-1, True, None, None, True),
        (1, False, None, None, True),
        (0, False, None, None, False),
        (1, True, dict(type='Pretrained', checkpoint='a'), None, False),
        (1, True, dict(type='Kaiming', layer='Conv2d'), None, True),
        (1, True, None, 'a.pth', False),
    ],
)
def test_frozen_at_random(frozen, norm_eval, init_cfg, load_from, warned, announced):
    backbone = nn.Module()
    backbone.frozen_stages = frozen
    backbone.norm_eval = norm_eval
    backbone.init_cfg = init_cfg
    cfg = Config(dict(load_from=load_from))
    preflight.warn_if_frozen_at_random(model_with(backbone), cfg)
    assert [level for _, level in announced] == [logging.WARNING] * warned


def test_p_1_is_dense_on_purpose():
    cfg = Config(dict(model=dict(conv_cfg=dict(type='HetConv', p=1))))
    preflight.check_model(nn.Conv2d(8, 8, 3), cfg)


def test_one_heterogeneous_layer_is_enough():
    cfg = Config(dict(model=dict(conv_cfg=dict(type='HetConv', p=4))))
    preflight.check_model(model_with(HetConv2d(8, 8, 3)), cfg)


def test_unknown_and_remote_data_sets_are_not_looked_at(tmp_path):
    for dataset in (
        dict(type='LVISV1Dataset', ann_file='no.json'),
        dict(type='CocoDataset', ann_file='no.json', data_root='s3://a/b/'),
        dict(type='CocoDataset', ann_file='no.json', backend_args=dict(a=1)),
        dict(type='CocoDataset', ann_file=''),
    ):
        cfg = Config(
            dict(
                model=dict(),
                work_dir=str(tmp_path),
                train_cfg=dict(max_epochs=1),
                train_dataloader=dict(dataset=dataset),
            )
        )
        check_config(cfg, ('train', 'val'))


def test_annotations_are_missed_where_they_are_counted(tmp_path):
    path = tmp_path / 'image_info_test-dev.json'
    tiny.draw(tmp_path / 'a.jpg', 0)
    image = dict(id=1, file_name='a.jpg', width=tiny.SIZE[0], height=tiny.SIZE[1])
    path.write_text(json.dumps(dict(images=[image], categories=[dict(id=1, name='disc')])))
    metric = dict(type='CocoMetric', ann_file=str(path))
    cfg = Config(
        dict(
            model=dict(),
            work_dir=str(tmp_path),
            test_cfg=dict(type='TestLoop'),
            test_dataloader=dict(
                dataset=dict(
                    type='CocoDataset',
                    ann_file=str(path),
                    data_prefix=dict(img=str(tmp_path)),
                    metainfo=dict(classes=('disc',)),
                    test_mode=True,
                )
            ),
            test_evaluator=dict(metric, format_only=True),
        )
    )
    check_config(cfg, ('test',))
    cfg.test_evaluator = [dict(metric, format_only=True), metric]
    with pytest.raises(UserError, match='test-dev.json has no annotations'):
        check_config(cfg, ('test',))


def test_unused_voc_classes_and_boxes_are_announced(tmp_path, announced):
    root = tiny.write_voc(tmp_path / 'voc')
    dataset = dict(
        type='VOCDataset',
        data_root=str(root),
        ann_file='ImageSets/Main/train.txt',
        metainfo=dict(classes=('bar',)),
    )
    cfg = Config(
        dict(
            model=dict(),
            work_dir=str(tmp_path),
            train_cfg=dict(max_epochs=1),
            train_dataloader=dict(dataset=dict(type='RepeatDataset', times=2, dataset=dataset)),
        )
    )
    check_config(cfg, ('train',))
    (names, boxes) = announced
    assert "'disc' are not used" in names[0]
    # The first image has a box that is a single point.
    assert 'train.txt: 1 of 13 boxes are not learnt from' in boxes[0]
    assert names[1] == boxes[1] == logging.WARNING


@pytest.mark.parametrize('name', ['RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK'])
def test_first_process(name, monkeypatch):
    assert is_first_process()
    monkeypatch.setenv(name, '0')
    assert is_first_process()
    monkeypatch.setenv(name, '3')
    assert not is_first_process()


@pytest.mark.parametrize(
    'frozen_stages, content, warned',
    [
        (1, None, 'layer1.0.conv1 and 3 more'),
        (2, None, 'layer1.0.conv1 and 7 more'),
        (0, None, None),
        (1, 'dense', 'layer1.0.conv1 and 3 more'),
        (1, 'het', None),
    ],
)
def test_frozen_projections(frozen_stages, content, warned, tmp_path, announced):
    cfg = dict(type='ResNet', depth=18, base_channels=16, frozen_stages=frozen_stages)
    het = dict(cfg, conv_cfg=dict(type='HetConv', p=4))
    model = model_with(MODELS.build(het))
    load_from = None
    if content:
        load_from = str(tmp_path / 'a.pth')
        source = model if content == 'het' else model_with(MODELS.build(cfg))
        torch.save(dict(state_dict=source.state_dict()), load_from)
    init_cfg = None if content else dict(type='Pretrained', checkpoint='torchvision://resnet18')
    config = dict(model=dict(backbone=dict(init_cfg=init_cfg)), load_from=load_from)
    preflight.warn_if_frozen_projected(model, Config(config))
    assert [level for _, level in announced] == [logging.WARNING] * bool(warned)
    assert not warned or f'backbone.{warned} HetConv layers are frozen' in announced[0][0]
