"""--data-root: every layout with every kind of config."""

import json
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from mmdet.registry import DATASETS, METRICS
from mmengine.config import Config

from mmdet_hetconv.comfort.data.own_data import use_own_data
from mmdet_hetconv.utils.errors import UserError
from mmdet_hetconv.workflow.config.config_parts import class_counts, leaf_datasets
from mmdet_hetconv.workflow.config.configs import merge_options
from tests import tiny

CONFIGS = Path(__file__).parents[3] / 'configs'
OURS = (
    'faster_rcnn_het_r50.py',
    'faster_rcnn_het_r50_voc.py',
    'ssd300_het_vgg16.py',
    'ssd300_het_vgg16_voc.py',
)
# Stock configs with something of their own, and how many num_classes they
# have: a list of heads, mixed images, heads with losses that count classes.
STOCK = {
    'cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py': 3,
    'yolox/yolox_s_8xb8-300e_coco.py': 1,
    'sparse_rcnn/sparse-rcnn_r50_fpn_1x_coco.py': 6,
}


@pytest.fixture(scope='module')
def roots(tmp_path_factory):
    path = tmp_path_factory.mktemp('data')
    return {'COCO': tiny.write_coco(path / 'coco'), 'VOC': tiny.write_voc(path / 'voc')}


@lru_cache
def read(path):
    return Config.fromfile(path)


def ours(name='faster_rcnn_het_r50.py'):
    return deepcopy(read(CONFIGS / name))


@lru_cache
def read_stock(name):
    with TemporaryDirectory() as folder:
        config = Path(folder) / 'stock.py'
        config.write_text(f"_base_ = 'mmdet::{name}'\n")
        return Config.fromfile(config)


def stock(name):
    return deepcopy(read_stock(name))


def check(cfg, layout, wrappers):
    """Build the data sets and evaluators of a config, and look at them."""
    classes = tiny.CLASSES if layout == 'COCO' else tuple(sorted(tiny.CLASSES))
    for name, split in (('train', 'train'), ('val', 'val'), ('test', 'val')):
        loader = cfg[f'{name}_dataloader']
        dataset = DATASETS.build(loader.dataset)
        assert tuple(dataset.metainfo['classes']) == classes
        assert len(dataset.metainfo['palette']) == len(classes)
        (leaf,) = (leaf for _, leaf in leaf_datasets(loader.dataset, ''))
        alone = DATASETS.build(leaf)
        assert len(alone) == tiny.SPLITS[split]
        assert Path(alone.get_data_info(0)['img_path']).is_file()
        assert alone.test_mode == (name != 'train')
        assert leaf.type == {'COCO': 'CocoDataset', 'VOC': 'VOCDataset'}[layout]
        if name != 'train':
            metric = METRICS.build(cfg[f'{name}_evaluator'])
            kind = {'COCO': 'CocoMetric', 'VOC': 'VOCMetric'}[layout]
            assert type(metric).__name__ == kind
    assert wrappers == wrapper_types(cfg.train_dataloader.dataset)
    for _, part in class_counts(cfg.model):
        assert part['num_classes'] == 2


def wrapper_types(dataset):
    found = []
    while 'dataset' in dataset or 'datasets' in dataset:
        found.append(dataset.type)
        dataset = dataset.dataset if 'dataset' in dataset else dataset.datasets[0]
    return found


@pytest.mark.parametrize('layout', ['COCO', 'VOC'])
@pytest.mark.parametrize('name', OURS)
def test_our_configs(name, layout, roots):
    cfg = ours(name)
    wrappers = wrapper_types(cfg.train_dataloader.dataset)
    use_own_data(cfg, str(roots[layout]))
    check(cfg, layout, wrappers)


@pytest.mark.parametrize('layout', ['COCO', 'VOC'])
@pytest.mark.parametrize('name', STOCK)
def test_stock_configs(name, layout, roots):
    cfg = stock(name)
    wrappers = wrapper_types(cfg.train_dataloader.dataset)
    counts = [path for path, _ in class_counts(cfg.model)]
    assert len(counts) == STOCK[name]
    use_own_data(cfg, str(roots[layout]))
    check(cfg, layout, wrappers)


def test_masks(tmp_path):
    root = tiny.write_coco(tmp_path / 'coco', masks=True)
    cfg = stock('mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py')
    use_own_data(cfg, str(root))
    heads = cfg.model.roi_head
    assert heads.bbox_head.num_classes == heads.mask_head.num_classes == 2
    assert cfg.val_evaluator.metric == ['bbox', 'segm']
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    assert 'mask' in dataset.get_data_info(0)['instances'][0]


def test_masks_that_are_only_evaluated(roots):
    cfg = stock('mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py')
    cfg.train_dataloader = None
    with pytest.raises(UserError, match='no segmentation'):
        use_own_data(cfg, str(roots['COCO']))


def test_training_and_test_samples(roots):
    """One sample through each pipeline: boxes and labels as drawn."""
    cfg = ours()
    cfg.train_dataloader.dataset.pipeline[3].prob = 0.0
    use_own_data(cfg, str(roots['VOC']))
    sample = DATASETS.build(cfg.train_dataloader.dataset)[0]['data_samples']
    # 64 x 48 pixels at 800: factor 16.67. VOC counts from one.
    boxes = sample.gt_instances.bboxes.tensor.numpy() / (800 / 48)
    np.testing.assert_allclose(boxes, [[5, 11, 23, 29], [33, 19, 59, 25]], atol=0.05)
    assert sample.gt_instances.labels.tolist() == [1, 0]  # disc, bar
    # The third box is a single point: it is there, and not learnt from.
    assert len(sample.ignored_instances) == 1
    sample = DATASETS.build(cfg.test_dataloader.dataset)[1]['data_samples']
    boxes = sample.gt_instances.bboxes.tensor.numpy()
    assert boxes.tolist() == [[5, 11, 23, 29], [33, 19, 59, 25]]


def test_boxes_for_evaluation_are_never_resized(roots):
    """VOCMetric needs true boxes at the image's own size."""
    cfg = stock('retinanet/retinanet_r50_fpn_1x_coco.py')
    pipeline = cfg.test_dataloader.dataset.pipeline
    load = next(s for s in pipeline if s.type == 'LoadAnnotations')
    for steps in (
        [s for s in pipeline if s is not load],
        [pipeline[0], load, *(s for s in pipeline[1:] if s is not load)],
    ):
        cfg.test_dataloader.dataset.pipeline = steps
        use_own_data(cfg, str(roots['VOC']))
        dataset = DATASETS.build(cfg.test_dataloader.dataset)
        sample = dataset[1]['data_samples']
        boxes = sample.gt_instances.bboxes.tensor.numpy()
        assert boxes.tolist() == [[5, 11, 23, 29], [33, 19, 59, 25]]


@pytest.mark.parametrize(
    'names, folder',
    [
        (['annotations/instances_train.json'], 'images'),
        (['annotations/train.json'], '{0}'),
        (['train.json'], 'images/{0}'),
        (['instances_train2014.json'], '{0}2014'),
        (['annotations/instances_train2017.json'], ''),
    ],
)
def test_places_in_the_coco_layout(names, folder, tmp_path):
    files = {s: names[0].replace('train', s) for s in ('train', 'test')}
    root = tiny.write_coco(tmp_path / 'coco', files, folder)
    cfg = ours()
    use_own_data(cfg, str(root))
    for name in ('train', 'val'):
        dataset = DATASETS.build(cfg[f'{name}_dataloader'].dataset)
        info = dataset.get_data_info(0)
        assert Path(info['img_path']).is_file()
    assert cfg.val_evaluator.ann_file == str(root / files['test'])


@pytest.mark.parametrize('place', ['.', 'BCCD', 'VOCdevkit/VOC2007'])
@pytest.mark.parametrize(
    'splits, chosen',
    [
        (('train', 'val', 'trainval', 'test'), ('train', 'val')),
        (('train', 'trainval', 'test'), ('trainval', 'test')),
        (('train', 'test'), ('train', 'test')),
    ],
)
def test_places_in_the_voc_layout(place, splits, chosen, tmp_path):
    tiny.write_voc(tmp_path / place, splits)
    cfg = ours()
    use_own_data(cfg, str(tmp_path))
    for name, split in zip(('train', 'val'), chosen):
        dataset = DATASETS.build(cfg[f'{name}_dataloader'].dataset)
        info = dataset.get_data_info(0)
        assert info['img_id'] == f'{split}_0'
        assert Path(info['img_path']).is_file()
        # By a folder's name VOCMetric would print VOC's twenty classes.
        assert dataset.metainfo.get('dataset_type') is None


def test_voc07_and_12(tmp_path):
    """Both years: trainval of both, evaluated on the test set of 2007."""
    tiny.write_voc(tmp_path / 'VOC2007', ('train', 'val', 'trainval', 'test'))
    tiny.write_voc(tmp_path / 'VOC2012', ('train', 'val', 'trainval'))
    for name in ('faster_rcnn_het_r50.py', 'faster_rcnn_het_r50_voc.py'):
        cfg = ours(name)
        use_own_data(cfg, str(tmp_path))
        train = DATASETS.build(cfg.train_dataloader.dataset)
        times = cfg.train_dataloader.dataset.get('times', 1)
        assert len(train) == 6 * times
        (leaf,) = (x for _, x in leaf_datasets(cfg.test_dataloader.dataset, ''))
        assert leaf.ann_file == 'VOC2007/ImageSets/Main/test.txt'


def test_voc_classes_keep_the_stock_recipe(tmp_path, monkeypatch):
    """VOC's own classes: type and smallest box as in mmdet's config."""
    from mmdet.datasets import VOCDataset

    voc = VOCDataset.METAINFO['classes']
    root = tmp_path / 'VOC2007'
    tiny.write_voc(root, ('train', 'val'))
    for split in ('train', 'val'):
        tiny.write_xml(
            root / 'Annotations' / f'{split}_1.xml', [(name, [5, 5, 40, 40]) for name in voc]
        )
        for other in (root / 'Annotations').glob(f'{split}_[!1].xml'):
            tiny.write_xml(other, [('cat', [5, 5, 40, 40])])
    cfg = ours('faster_rcnn_het_r50_voc.py')
    use_own_data(cfg, str(tmp_path))
    (leaf,) = (x for _, x in leaf_datasets(cfg.train_dataloader.dataset, ''))
    assert (leaf.type, leaf.metainfo.classes) == ('VOCDataset', voc)
    assert leaf.filter_cfg.bbox_min_size == 32
    assert cfg.model.roi_head.bbox_head.num_classes == 20


def test_the_config_decides_between_two_layouts(tmp_path):
    tiny.write_coco(tmp_path)
    tiny.write_voc(tmp_path)
    for name, kind in (
        ('faster_rcnn_het_r50.py', 'CocoDataset'),
        ('faster_rcnn_het_r50_voc.py', 'VOCDataset'),
    ):
        cfg = ours(name)
        use_own_data(cfg, str(tmp_path))
        assert cfg.val_dataloader.dataset.type == kind


def test_options_win(roots):
    cfg = ours('ssd300_het_vgg16.py')
    use_own_data(cfg, str(roots['VOC']))
    merge_options(cfg, {'train_dataloader.dataset.times': 1, 'val_evaluator.eval_mode': '11points'})
    assert len(DATASETS.build(cfg.train_dataloader.dataset)) == 6
    assert METRICS.build(cfg.val_evaluator).eval_mode == '11points'


def test_classes_come_in_the_order_of_the_file(roots, tmp_path):
    """CocoDataset numbers classes by the file, whatever their ids are."""
    root = tiny.write_coco(tmp_path / 'coco')
    for path in root.glob('annotations/*.json'):
        content = json.loads(path.read_text())
        content['categories'].reverse()
        path.write_text(json.dumps(content))
    cfg = ours()
    use_own_data(cfg, str(root))
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    instances = dataset.get_data_info(0)['instances']
    names = [dataset.metainfo['classes'][i['bbox_label']] for i in instances]
    assert names == ['disc', 'bar']  # as drawn


def test_other_kinds_of_data_sets_are_refused(roots):
    cfg = stock('panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco.py')
    with pytest.raises(UserError, match='not of CocoPanopticDataset'):
        use_own_data(cfg, str(roots['COCO']))


def test_two_voc_data_sets_are_ambiguous(tmp_path):
    tiny.write_voc(tmp_path / 'a')
    tiny.write_voc(tmp_path / 'b')
    cfg = ours()
    with pytest.raises(UserError, match='2 VOC data sets: a, b'):
        use_own_data(cfg, str(tmp_path))


def test_two_annotation_files_are_ambiguous(roots, tmp_path):
    root = tiny.write_coco(tmp_path / 'coco')
    first = root / 'annotations' / 'instances_train2017.json'
    first.with_name('instances_train2014.json').write_text(first.read_text())
    cfg = ours()
    with pytest.raises(UserError, match='2 annotation files for train'):
        use_own_data(cfg, str(root))


def test_unknown_class_in_what_is_evaluated(tmp_path, monkeypatch):
    root = tiny.write_voc(tmp_path / 'voc')
    tiny.write_xml(root / 'Annotations' / 'val_1.xml', [('cube', [1, 1, 9, 9])])
    cfg = ours()
    told = []
    monkeypatch.setattr(
        'mmdet_hetconv.comfort.data.layouts.tool_layouts.announce',
        lambda text, level=0: told.append(text),
    )
    use_own_data(cfg, str(root))
    assert cfg.model.roi_head.bbox_head.num_classes == 3
    assert "no training image has the classes 'cube' of the validation images" in told[0]


@pytest.mark.parametrize('layout, kept', [('COCO', 'CocoMetric'), ('VOC', 'VOCMetric')])
def test_evaluators_of_both_layouts_become_one(roots, layout, kept):
    cfg = Config.fromfile('configs/faster_rcnn_het_r50.py')
    cfg.val_evaluator = [dict(type='VOCMetric', metric='mAP'), dict(type='CocoMetric')]
    use_own_data(cfg, str(roots[layout]))
    assert [part['type'] for part in cfg.val_evaluator] == [kept]
