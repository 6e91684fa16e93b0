"""COCO's metric on annotation files of other tools than COCO's."""

import json

import pytest
import torch
from mmdet.evaluation import CocoMetric
from mmengine.config import Config
from mmengine.registry import METRICS

from mmdet_hetconv.datasets.metrics import NumberedCocoMetric, use_own_metrics
from tests.engine import tiny


def perfect_map(metric: dict, content: dict) -> float:
    """The mAP of predictions that are the annotations."""
    metric = METRICS.build(metric)
    metric.dataset_meta = dict(classes=tiny.CLASSES)
    numbers = [category['id'] for category in content['categories']]
    for image in content['images']:
        boxes = [b for b in content['annotations'] if b['image_id'] == image['id']]
        corners = [(x, y, x + w, y + h) for x, y, w, h in (b['bbox'] for b in boxes)]
        found = dict(
            bboxes=torch.tensor(corners),
            scores=torch.full((len(boxes),), 0.9),
            labels=torch.tensor([numbers.index(b['category_id']) for b in boxes]),
        )
        sample = dict(img_id=image['id'], ori_shape=tiny.SIZE[::-1], pred_instances=found)
        metric.process({}, [sample])
    return metric.evaluate(len(content['images']))['coco/bbox_mAP']


@pytest.fixture
def annotations(tmp_path):
    """A function that renames ids in an annotation file, and reads it."""
    path = tiny.write_coco(tmp_path) / 'annotations/instances_val2017.json'

    def change(key: str, rename) -> dict:
        content = json.loads(path.read_text())
        for entry in content[key]:
            entry['id'] = rename(entry['id'])
        for box in content['annotations']:
            for name, of in (('image_id', 'images'), ('category_id', 'categories')):
                if of == key:
                    box[name] = rename(box[name])
        path.write_text(json.dumps(content))
        return content

    change.path = str(path)
    return change


@pytest.mark.parametrize('key', ['annotations', 'images', 'categories'])
@pytest.mark.parametrize(
    'rename',
    [lambda n: n - 1, lambda n: f'a{n}', lambda n: n - 3],
    ids=['from 0', 'text', 'negative'],
)
def test_perfect_predictions(annotations, key, rename):
    content = annotations(key, rename)
    metric = dict(type='NumberedCocoMetric', ann_file=annotations.path)
    assert perfect_map(metric, content) == 1.0


@pytest.mark.parametrize('several', [False, True])
def test_configs_get_it(several):
    metric = dict(type='CocoMetric', ann_file='a.json', metric='bbox')
    other = dict(type='DumpDetResults', out_file_path='b.pkl')
    cfg = Config(
        dict(
            val_evaluator=[metric, other] if several else metric,
            test_evaluator=dict(type=CocoMetric),
        )
    )
    use_own_metrics(cfg)
    first = cfg.val_evaluator[0] if several else cfg.val_evaluator
    assert first == dict(metric, type='NumberedCocoMetric')
    assert METRICS.get(first.type) is NumberedCocoMetric
    assert cfg.test_evaluator.type == 'NumberedCocoMetric'
