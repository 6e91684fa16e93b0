"""Images that mmdet drops from a training set, counted beforehand."""

import itertools
import json

import pytest
from mmdet.registry import DATASETS

from mmdet_hetconv.comfort.data.checks.dropped_images import (
    check_anything_to_learn,
    describe_dropped,
)
from mmdet_hetconv.comfort.data.coco import read_coco
from mmdet_hetconv.comfort.data.voc import read_voc
from mmdet_hetconv.utils.errors import UserError
from tests import tiny

RULES = [
    dict(zip(('filter_empty_gt', 'min_size', 'bbox_min_size'), values))
    for values in itertools.product((False, True), (0, 40, 48, 49), (None, 1))
]
CLASSES = [('disc', 'bar'), ('bar',), ('disc',)]


@pytest.fixture(scope='module')
def coco(tmp_path_factory):
    """Six images: 0 has no box, 1 only a bar, 2 a crowd, 3 is small."""
    root = tiny.write_coco(tmp_path_factory.mktemp('coco'))
    path = root / 'annotations/instances_train2017.json'
    content = json.loads(path.read_text())
    boxes = content['annotations']
    content['annotations'] = boxes[3:]
    for box in boxes[4:6]:
        box['iscrowd'] = 1
    content['images'][3].update(width=39)
    path.write_text(json.dumps(content))
    return root, path


@pytest.fixture(scope='module')
def voc(tmp_path_factory):
    root = tiny.write_voc(tmp_path_factory.mktemp('voc'))
    tiny.write_xml(root / 'Annotations/train_0.xml', [])
    tiny.write_xml(root / 'Annotations/train_1.xml', [('bar', [1, 1, 9, 9])])
    return root, root / 'ImageSets/Main/train.txt'


def left_out(kind, path, root, rules, classes):
    """mmdet's number of images, and what is told of it."""
    config = dict(
        type=kind, ann_file=str(path), filter_cfg=rules,
        metainfo=dict(classes=classes), pipeline=[],
    )  # fmt: skip
    if kind == 'CocoDataset':
        config['data_prefix'] = dict(img=str(root))
        found = read_coco(path)
    else:
        config['data_prefix'] = dict(sub_data_root=str(root))
        found = read_voc(path, root / 'Annotations')
    kept = len(DATASETS.build(dict(config, serialize_data=False)))
    try:
        told = describe_dropped(config, 'key', found, classes)
    except UserError as error:
        assert kept == 0
        told = str(error)
    return len(found.images), kept, told


@pytest.mark.parametrize('classes', CLASSES)
@pytest.mark.parametrize('rules', RULES, ids=str)
@pytest.mark.parametrize('kind', ['CocoDataset', 'VOCDataset'])
def test_number_is_mmdets(kind, rules, classes, coco, voc):
    root, path = coco if kind == 'CocoDataset' else voc
    rules = {k: v for k, v in rules.items() if v is not None}
    images, kept, told = left_out(kind, path, root, rules, classes)
    if kept == images:
        assert told is None
    else:
        assert f'{images - kept} of {images} images of {path} are' in told


def test_reasons(coco):
    root, path = coco
    rules = dict(filter_empty_gt=True, min_size=40)
    *_, told = left_out('CocoDataset', path, root, rules, ('disc', 'bar'))
    assert told == (
        f'key: 2 of 6 images of {path} are not trained on: 1 without a box '
        'of the classes, 1 below min_size=40'
    )
    config = dict(filter_cfg=rules, test_mode=True)
    assert describe_dropped(config, 'key', read_coco(path), ('disc',)) is None


def change_all(content, **values):
    for box in content['annotations']:
        box.update(values)


@pytest.mark.parametrize(
    'values', [dict(iscrowd=1), dict(ignore=1), dict(area=0), dict(bbox=[3, 3, 0.5, 9])]
)
def test_nothing_to_learn(values, tmp_path):
    root = tiny.write_coco(tmp_path)
    train, val = (root / f'annotations/instances_{split}2017.json' for split in ('train', 'val'))
    content = json.loads(train.read_text())
    check_anything_to_learn([read_coco(train)], tiny.CLASSES)
    change_all(content, **values)
    train.write_text(json.dumps(content))
    with pytest.raises(UserError, match='train2017.json: no box to learn from'):
        check_anything_to_learn([read_coco(train)], tiny.CLASSES)
    check_anything_to_learn([read_coco(train), read_coco(val)], tiny.CLASSES)


def test_difficult_objects_are_not_learnt(tmp_path):
    root = tiny.write_voc(tmp_path)
    for path in (root / 'Annotations').glob('train_*.xml'):
        text = path.read_text().replace('difficult>0', 'difficult>1')
        path.write_text(text)
    found = read_voc(root / 'ImageSets/Main/train.txt', root / 'Annotations')
    with pytest.raises(UserError, match='train.txt: no box to learn from'):
        check_anything_to_learn([found], tiny.CLASSES)
