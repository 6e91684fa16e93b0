"""One size of images for training and evaluation."""

import logging

import pytest
from mmengine.config import Config

from mmdet_hetconv.comfort.training import image_scale
from mmdet_hetconv.comfort.training.image_scale import (
    set_image_scale,
    warn_of_another_scale,
    warn_of_other_scales,
)
from mmdet_hetconv.utils.errors import UserError
from mmdet_hetconv.workflow.config.configs import read_config
from mmdet_hetconv.zoo import CONFIGS


@pytest.fixture
def said(monkeypatch):
    found = []
    monkeypatch.setattr(image_scale, 'announce', lambda *words: found.append(words))
    return found


def sizes(pipeline):
    keys = ('scale', 'scales', 'img_scale', 'size', 'crop_size')
    return [(step['type'], step[key]) for step in pipeline for key in keys if step.get(key)]


def stock(folder, name):
    path = folder / 'stock.py'
    path.write_text(f"_base_ = 'mmdet::{name}.py'\n")
    return read_config(str(path))


@pytest.mark.parametrize('scale, wanted', [([320], (320, 320)), ([320, 240], (320, 240))])
def test_training_and_evaluation_alike(scale, wanted, said):
    cfg = read_config(str(CONFIGS / 'faster_rcnn_het_r18_scratch.py'))
    set_image_scale(cfg, scale)
    for role in ('train', 'val', 'test'):
        assert sizes(cfg[f'{role}_dataloader'].dataset.pipeline) == [('Resize', wanted)]
    warn_of_other_scales(cfg)
    assert len(said) == 1


def test_sizes_that_are_drawn_keep_their_ratio(tmp_path, said):
    cfg = stock(tmp_path, 'detr/detr_r50_8xb2-150e_coco')
    set_image_scale(cfg, [667, 400])
    drawn = cfg.train_dataloader.dataset.pipeline[3].transforms
    assert drawn[0][0].scales[0] == (240, 667) and drawn[0][0].scales[-1] == (400, 667)
    assert drawn[1][1].crop_size == (192, 300)  # height first, of 384 x 600
    assert sizes(cfg.test_dataloader.dataset.pipeline) == [('Resize', (667, 400))]


def test_pipelines_of_wrappers(tmp_path, said):
    cfg = stock(tmp_path, 'yolox/yolox_s_8xb8-300e_coco')
    set_image_scale(cfg, [320])
    outer = sizes(cfg.train_dataloader.dataset.pipeline)
    assert ('Mosaic', (320, 320)) in outer and ('Resize', (320, 320)) in outer
    augments = cfg.model.data_preprocessor.batch_augments
    assert tuple(augments[0].random_size_range) == (240, 400)
    assert cfg.train_dataloader.dataset.dataset.pipeline[0].type == 'LoadImageFromFile'
    assert not sizes(cfg.train_dataloader.dataset.dataset.pipeline)


def without_resize(*roles):
    cfg = read_config(str(CONFIGS / 'faster_rcnn_het_r18_small.py'))
    for role in roles:
        dataset = cfg[f'{role}_dataloader'].dataset
        dataset.pipeline = [step for step in dataset.pipeline if step.type != 'Resize']
    return cfg


def test_a_pipeline_without_one_is_told_and_gets_one(said):
    cfg = without_resize('train')
    warn_of_other_scales(cfg)
    ((text, level),) = said
    assert 'at their own size and evaluated at (320, 320)' in text and level == logging.WARNING
    set_image_scale(cfg, [200])
    kinds = [step.type for step in cfg.train_dataloader.dataset.pipeline]
    assert kinds[:4] == ['LoadImageFromFile', 'LoadAnnotations', 'Resize', 'RandomFlip']
    cfg = without_resize('train', 'val', 'test')
    set_image_scale(cfg, [200])
    steps = cfg.val_dataloader.dataset.pipeline
    # Annotations of an evaluation are those of the original image.
    assert [step.type for step in steps[:3]] == ['LoadImageFromFile', 'Resize', 'LoadAnnotations']
    assert steps[1].scale == (200, 200) and steps[1].keep_ratio


def test_another_size_in_training_is_told(said):
    cfg = read_config(str(CONFIGS / 'faster_rcnn_het_r18_scratch.py'))
    cfg.val_dataloader.dataset.pipeline[1].scale = (320, 320)
    warn_of_other_scales(cfg)
    assert 'trained at (1333, 800) and evaluated at (320, 320)' in said[0][0]


@pytest.mark.parametrize(
    'name', ['faster_rcnn_het_r50', 'ssd300_het_vgg16', 'demo_faster_rcnn_het_r18', 'fcos_het_r50']
)
def test_our_configs_have_one_size(name, said):
    warn_of_other_scales(read_config(str(CONFIGS / f'{name}.py')))
    assert not said


def test_a_checkpoint_of_another_size_is_told(said):
    cfg = read_config(str(CONFIGS / 'faster_rcnn_het_r18_small.py'))
    content = dict(meta=dict(cfg=cfg.pretty_text))
    warn_of_another_scale(content, cfg, 'a.pth')
    warn_of_another_scale(dict(), cfg, 'a.pth')
    assert not said
    cfg.test_dataloader.dataset.pipeline[1].scale = (640, 640)
    warn_of_another_scale(content, cfg, 'a.pth')
    assert (
        'a.pth was trained by evaluates images at (320, 320), this one at (640, 640)' in said[0][0]
    )


def test_ssd_has_a_size_of_its_own():
    cfg = read_config(str(CONFIGS / 'ssd300_het_vgg16.py'))
    with pytest.raises(UserError, match=r'anchor_generator\.input_size=300 fixes the size'):
        set_image_scale(cfg, [320])
    assert isinstance(cfg, Config)
