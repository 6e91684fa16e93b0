"""Evaluators that count other images or classes than the data set shows."""

import copy
import json

import pytest

from mmdet_hetconv.comfort.data.checks.evaluators import check_evaluator
from mmdet_hetconv.comfort.data.coco import read_coco
from mmdet_hetconv.utils.errors import UserError
from tests import tiny

OURS = 'annotations/instances_val2017.json'


def reverse_categories(content):
    content['categories'].reverse()


def exchange_ids(content):
    first, second = content['images'][:2]
    first['id'], second['id'] = second['id'], first['id']


def count_from_7(content):
    for image in content['images']:
        image['id'] += 6
    for box in content['annotations']:
        box['image_id'] += 6


def rename_images(content):
    for image in content['images']:
        image['file_name'] = f'other/{image["id"]}.jpg'


def rename_class(content):
    content['categories'][0]['name'] = 'cube'


def add_image(content):
    content['images'].append(dict(content['images'][0], id=99))


def drop_image(content):
    gone = content['images'].pop()
    content['annotations'] = [
        box for box in content['annotations'] if box['image_id'] != gone['id']
    ]


@pytest.fixture
def root(tmp_path):
    return tiny.write_coco(tmp_path)


def check(root, change=lambda content: None, several=False):
    content = json.loads((root / OURS).read_text())
    change(content)
    other = root / 'other.json'
    other.write_text(json.dumps(content))
    metric = dict(type='CocoMetric', ann_file=str(other))
    evaluator = [dict(type='DumpDetResults'), metric] if several else metric
    check_evaluator(evaluator, 'test_evaluator', [read_coco(root / OURS)], tiny.CLASSES)


@pytest.mark.parametrize(
    'change, message',
    [
        (reverse_categories, "'disc', 'bar' are not in the order of .*other"),
        (rename_class, "'disc' is no category of .*other.json"),
        (exchange_ids, 'id 1 is val_1.jpg in .*other.json and val_0.jpg in'),
        (rename_images, 'id 1 is other/1.jpg in .*other.json and val_0.jpg'),
        (count_from_7, 'other.json has no image of the id 1, .* val_0.jpg'),
        (drop_image, 'other.json has no image of the id 3, .* val_2.jpg'),
        (add_image, 'other.json has the image val_0.jpg, which is not in'),
    ],
)  # fmt: skip
def test_disagreement(root, change, message):
    with pytest.raises(UserError, match=message) as error:
        check(root, change)
    assert str(error.value).startswith('test_evaluator.ann_file: ')
    with pytest.raises(UserError, match=r'^test_evaluator\[1\].ann_file: '):
        check(root, change, several=True)


def test_agreement(root):
    def in_folder(content):
        for image in content['images']:
            image['file_name'] = f'val2017/{image["file_name"]}'
        content['images'].reverse()
        content['annotations'] = content['annotations'][:1]

    check(root)
    check(root, in_folder, several=True)


def test_data_sets_in_parts(root):
    """ConcatDataset: one file to evaluate, two to read."""
    content = json.loads((root / OURS).read_text())
    parts = []
    for number, images in enumerate((content['images'][:1], content['images'][1:])):
        part = copy.deepcopy(content) | dict(images=images)
        ids = {image['id'] for image in images}
        part['annotations'] = [b for b in content['annotations'] if b['image_id'] in ids]
        path = root / f'part{number}.json'
        path.write_text(json.dumps(part))
        parts.append(read_coco(path))
    metric = dict(type='NumberedCocoMetric', ann_file=str(root / OURS))
    check_evaluator(metric, 'val_evaluator', parts, tiny.CLASSES)
    with pytest.raises(UserError, match='not in the data set, .*part0.json'):
        check_evaluator(metric, 'val_evaluator', parts[:1], tiny.CLASSES)


def test_images_that_are_not_known_here(root):
    metric = dict(type='CocoMetric', ann_file=str(root / OURS))
    check_evaluator(metric, 'val_evaluator', (), tiny.CLASSES)
    check_evaluator(None, 'val_evaluator', (), None)
