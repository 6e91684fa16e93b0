"""Test-time augmentation: copies of an image, one truth."""

import numpy as np
import pytest
from mmcv.transforms import Compose
from mmengine.config import Config

from mmdet_hetconv.comfort.training import augmentation

LOAD = [
    dict(type='mmdet.LoadAnnotations', with_bbox=True),
    dict(type='mmdet.PackDetInputs', meta_keys=('img_shape', 'flip')),
]
FLIPS = [dict(type='mmdet.RandomFlip', prob=prob) for prob in (1.0, 0.0)]


@pytest.mark.parametrize('own', [None, FLIPS, FLIPS[::-1]])
def test_the_truth_is_not_flipped_with_the_image(own):
    dataset = dict(type='VOCDataset', pipeline=LOAD)
    cfg = Config(dict(model=dict(type='SSD'), test_dataloader=dict(dataset=dataset)))
    if own:
        augment = dict(type='TestTimeAug', transforms=[own, LOAD[1:]])
        cfg.tta_pipeline = [LOAD[0], augment]
    augmentation.augment(cfg)
    assert cfg.model.module.type == 'SSD'
    image = np.zeros((40, 60, 3), np.uint8)
    instances = [dict(bbox=[2, 4, 12, 14], bbox_label=0, ignore_flag=0)]
    given = dict(img=image, img_shape=(40, 60), ori_shape=(40, 60), instances=instances)
    pipeline = cfg.test_dataloader.dataset.pipeline
    packed = Compose([dict(step) for step in pipeline])(given)
    boxes = [s.gt_instances.bboxes.tensor.tolist() for s in packed['data_samples']]
    assert boxes == [[[2, 4, 12, 14]]] * 2
    assert {sample.flip for sample in packed['data_samples']} == {True, False}
