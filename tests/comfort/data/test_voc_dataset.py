"""VOC layouts whose images are not named .jpg."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from mmdet.registry import DATASETS
from mmengine.config import Config

from mmdet_hetconv.comfort.data.own_data import use_own_data
from mmdet_hetconv.comfort.training.check_config import check_config
from mmdet_hetconv.utils.errors import UserError
from mmdet_hetconv.workflow.config.config_parts import leaf_datasets
from tests import tiny

CONFIG = Path(__file__).parents[3] / 'configs' / 'faster_rcnn_het_r50.py'


def rewrite(root, suffix):
    """Store the images of a VOC data set in another format."""
    for path in (root / 'JPEGImages').glob('*.jpg'):
        cv2.imwrite(str(path.with_suffix(suffix)), cv2.imread(str(path)))
        path.unlink()


def own(root):
    cfg = Config.fromfile(CONFIG)
    cfg.model.roi_head.bbox_head.num_classes = 2
    use_own_data(cfg, str(root))
    cfg.model.backbone.init_cfg = None
    cfg.work_dir = str(root / 'work')
    return cfg


@pytest.mark.parametrize('suffix', ['.png', '.bmp', '.JPG', '.jpeg'])
def test_other_endings(suffix, tmp_path):
    root = tiny.write_voc(tmp_path / 'voc')
    rewrite(root, suffix)
    cfg = own(root)
    check_config(cfg, ('train', 'val', 'test'))
    for name, split in (('train', 'train'), ('val', 'val')):
        data = DATASETS.build(cfg[f'{name}_dataloader'].dataset)
        found = [data.get_data_info(n)['img_path'] for n in range(len(data))]
        assert found == [
            str(root / 'JPEGImages' / f'{split}_{n}{suffix}') for n in range(tiny.SPLITS[split])
        ]
    boxes = data[1]['data_samples'].gt_instances.bboxes.tensor.numpy()
    assert boxes.tolist() == [[5, 11, 23, 29], [33, 19, 59, 25]]


def test_every_image_may_have_its_own_ending(tmp_path):
    """Where one is named .jpg, mmdet's rule goes first."""
    root = tiny.write_voc(tmp_path / 'voc')
    images = root / 'JPEGImages'
    (images / 'val_1.jpg').rename(images / 'val_1.Jpeg')
    (images / 'val_2.png').write_bytes(b'a mask, say')
    cfg = own(root)
    check_config(cfg, ('train', 'val', 'test'))
    data = DATASETS.build(cfg.val_dataloader.dataset)
    names = [Path(data.get_data_info(n)['img_path']).name for n in range(3)]
    assert names == ['val_0.jpg', 'val_1.Jpeg', 'val_2.jpg']


def test_two_images_of_one_name(tmp_path):
    root = tiny.write_voc(tmp_path / 'voc')
    rewrite(root, '.png')
    (root / 'JPEGImages' / 'val_1.bmp').write_bytes(b'another')
    with pytest.raises(UserError, match=r'JPEGImages has 2 images val_1: val_1.bmp, val_1.p'):
        own(root)


def test_missing_image(tmp_path):
    root = tiny.write_voc(tmp_path / 'voc')
    rewrite(root, '.png')
    (root / 'JPEGImages' / 'val_1.png').unlink()
    with pytest.raises(UserError, match=r'val_1\.jpg does not exist'):
        check_config(own(root), ('train', 'val', 'test'))


def test_images_in_folders(tmp_path):
    """The names in the list may have folders."""
    root = tiny.write_voc(tmp_path / 'voc')
    rewrite(root, '.png')
    for folder, ending in (('JPEGImages', 'png'), ('Annotations', 'xml')):
        (root / folder / 'a').mkdir()
        for path in (root / folder).glob(f'val_*.{ending}'):
            path.rename(root / folder / 'a' / path.name)
    lines = root / 'ImageSets' / 'Main' / 'val.txt'
    lines.write_text(lines.read_text().replace('val', 'a/val'))
    cfg = own(root)
    check_config(cfg, ('train', 'val', 'test'))
    data = DATASETS.build(cfg.val_dataloader.dataset)
    assert np.prod(data[1]['inputs'].shape) > 0


@pytest.mark.parametrize('place', ['VOC2007', 'voc2007'])
def test_own_classes_in_a_folder_named_as_voc(place, tmp_path):
    """By that name VOCMetric would print VOC's twenty classes."""
    root = tiny.write_voc(tmp_path / place)
    rewrite(root, '.png')
    cfg = own(tmp_path)
    (leaf,) = (x for _, x in leaf_datasets(cfg.val_dataloader.dataset, ''))
    data = DATASETS.build(leaf)
    assert data.metainfo.get('dataset_type') is None
    assert cfg.val_evaluator.eval_mode == '11points'
