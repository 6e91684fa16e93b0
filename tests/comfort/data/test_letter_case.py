"""--data-root: names of files and folders in any letter case."""

from pathlib import Path

import pytest
from mmdet.registry import DATASETS
from mmengine.config import Config

from mmdet_hetconv.comfort.data.own_data import use_own_data
from mmdet_hetconv.comfort.training.check_config import check_config
from tests import tiny

CONFIG = Path(__file__).parents[3] / 'configs' / 'faster_rcnn_het_r50.py'


def check(root):
    cfg = Config.fromfile(CONFIG)
    use_own_data(cfg, str(root))
    cfg.model.backbone.init_cfg = None
    cfg.work_dir = str(root / 'work')
    check_config(cfg, ('train', 'val', 'test'))
    for name in ('train', 'val'):
        data = DATASETS.build(cfg[f'{name}_dataloader'].dataset)
        assert len(data) == tiny.SPLITS[name]
        assert Path(data.get_data_info(0)['img_path']).is_file()
    return cfg


@pytest.mark.parametrize(
    'name, folder',
    [
        ('annotations/instances_{}.json', '{}2017'),
        ('Annotations/Instances_{}2017.json', 'Images/{}'),
        ('{}.JSON', '{}'),
        ('{}.json', 'IMAGES'),
    ],
)
def test_coco(name, folder, tmp_path):
    files = {s: name.format(s.capitalize()) for s in ('train', 'val')}
    root = tiny.write_coco(tmp_path / 'coco', files, folder.format('{0}'))
    for path in list(root.rglob('*')):
        if path.is_dir() and path.name.startswith(('train', 'val')):
            path.rename(path.with_name(path.name.capitalize()))
    cfg = check(root)
    assert cfg.val_evaluator.ann_file == str(root / files['val'])


def test_coco_trainval_is_not_train(tmp_path):
    files = {s: f'{s.capitalize()}.json' for s in ('trainval', 'train', 'val')}
    root = tiny.write_coco(tmp_path / 'coco', files, 'images')
    assert check(root).train_dataloader.dataset.ann_file == 'Train.json'


def test_the_usual_spelling_goes_first(tmp_path):
    files = {s: f'{s}.json' for s in ('train', 'val')}
    root = tiny.write_coco(tmp_path / 'coco', files, 'images')
    (root / 'Train.json').write_text('of something else')
    assert check(root).train_dataloader.dataset.ann_file == 'train.json'


@pytest.mark.parametrize('change', [str.lower, str.upper, str.swapcase, str.capitalize])
def test_voc(change, tmp_path):
    root = tiny.write_voc(tmp_path / 'voc')
    for name in ('train.txt', 'val.txt'):
        path = root / 'ImageSets' / 'Main' / name
        path.rename(path.with_name(change(name)))
    for path in (
        root / 'ImageSets' / 'Main',
        *(root / name for name in ('ImageSets', 'Annotations', 'JPEGImages')),
    ):
        path.rename(path.with_name(change(path.name)))
    cfg = check(root)
    assert cfg.val_dataloader.dataset.ann_file == '/'.join(
        map(change, ('ImageSets', 'Main', 'val.txt'))
    )
