"""The demo's data: same bytes every time, one truth in two layouts."""

import json
import runpy
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import cv2
import numpy as np
import pytest

SCRIPT = Path(__file__).parents[2] / 'tools' / 'demo' / 'make_shapes.py'


@pytest.fixture(scope='module')
def make_shapes():
    return runpy.run_path(str(SCRIPT))


@pytest.fixture(scope='module')
def data_set(make_shapes, tmp_path_factory):
    folder = tmp_path_factory.mktemp('shapes') / 'demo'
    make_shapes['make_data_set'](folder, train=12, val=5, seed=3)
    return folder


def contents(folder):
    return {
        file.relative_to(folder): file.read_bytes() for file in folder.rglob('*') if file.is_file()
    }


def test_same_arguments_give_the_same_bytes(make_shapes, data_set, tmp_path):
    make_shapes['make_data_set'](tmp_path / 'again', 12, 5, seed=3)
    assert contents(tmp_path / 'again') == contents(data_set)


def test_another_seed_gives_other_images(make_shapes, data_set, tmp_path):
    make_shapes['make_data_set'](tmp_path / 'other', 12, 5, seed=4)
    name = Path('coco/images/train_00000.jpg')
    assert contents(tmp_path / 'other')[name] != contents(data_set)[name]


def test_splits_share_no_image(data_set):
    images = [f.read_bytes() for f in (data_set / 'coco/images').iterdir()]
    assert len(set(images)) == 12 + 5


@pytest.mark.parametrize('split, count', [('train', 12), ('val', 5)])
def test_layouts_hold_the_same_boxes(data_set, split, count):
    coco = json.loads((data_set / f'coco/annotations/instances_{split}.json').read_text())
    names = {c['id']: c['name'] for c in coco['categories']}
    in_coco = {}
    for image in coco['images']:
        stem = Path(image['file_name']).stem
        in_coco[stem] = [
            (names[a['category_id']], *a['bbox'])
            for a in coco['annotations']
            if a['image_id'] == image['id']
        ]
    in_voc = {}
    listed = (data_set / f'voc/ImageSets/Main/{split}.txt').read_text()
    for stem in listed.split():
        path = data_set / f'voc/Annotations/{stem}.xml'
        in_voc[stem] = []
        for item in ElementTree.parse(path).iter('object'):
            x0, y0, x1, y1 = (
                int(item.find(f'bndbox/{side}').text) for side in ('xmin', 'ymin', 'xmax', 'ymax')
            )
            in_voc[stem].append(
                (item.find('name').text, x0 - 1, y0 - 1, x1 - x0 + 1,
                 y1 - y0 + 1)
            )  # yapf: disable
    assert len(in_coco) == count
    assert in_voc == in_coco
    for stem in in_coco:
        in_both = [
            (data_set / place / f'{stem}.jpg').read_bytes()
            for place in ('coco/images', 'voc/JPEGImages')
        ]
        assert in_both[0] == in_both[1]


def test_boxes_fit_their_shapes(make_shapes):
    """An object is of one colour: its box holds the outline, tightly."""
    rng = np.random.default_rng(0)
    for name in make_shapes['CLASSES']:
        for _ in range(50):
            corners = make_shapes['outline'](name, rng)
            assert corners.min() >= 0
            assert (corners[:, 0] < make_shapes['WIDTH']).all()
            assert (corners[:, 1] < make_shapes['HEIGHT']).all()
    image, objects = make_shapes['draw'](np.random.default_rng(5))
    for item in objects:
        x, y, w, h = item['box']
        centre = image[y + h // 2, x + w // 2].astype(int)
        inside = np.abs(image[y : y + h, x : x + w] - centre).max(2) < 60
        _, parts = cv2.connectedComponents(inside.astype(np.uint8))
        shape = parts == parts[h // 2, w // 2]
        assert shape[0].any() and shape[-1].any()
        assert shape[:, 0].any() and shape[:, -1].any()


def test_nothing_is_left_half_made(make_shapes, tmp_path, monkeypatch):
    """A run that dies leaves no folder a later one would take for whole."""
    folder = tmp_path / 'demo'
    with monkeypatch.context() as patch:

        def full_disk(*_):
            raise OSError('No space left on device')

        patch.setattr(Path, 'write_text', full_disk)
        with pytest.raises(OSError, match='No space left'):
            make_shapes['make_data_set'](folder, 2, 1, seed=0)
    assert not folder.exists()
    make_shapes['make_data_set'](folder, 2, 1, seed=0)
    assert len(list((folder / 'coco/images').iterdir())) == 3


def test_mmdet_reads_both_layouts(data_set):
    from mmdet.datasets import CocoDataset, VOCDataset

    classes = dict(classes=('circle', 'square', 'triangle'))
    coco = CocoDataset(
        data_root=str(data_set / 'coco'),
        ann_file='annotations/instances_val.json',
        data_prefix=dict(img='images/'),
        metainfo=classes,
    )
    voc = VOCDataset(
        data_root=str(data_set / 'voc'),
        ann_file='ImageSets/Main/val.txt',
        data_prefix=dict(sub_data_root=''),
        metainfo=dict(classes=classes['classes'], dataset_type='VOC2007'),
    )
    assert len(coco) == len(voc) == 5
    for ours, theirs in zip(coco, voc):
        labels = [i['bbox_label'] for i in ours['instances']]
        assert labels == [i['bbox_label'] for i in theirs['instances']]
