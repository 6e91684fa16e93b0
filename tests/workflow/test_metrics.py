"""COCO's metric on annotation files of other tools than COCO's."""

import json
from pathlib import Path

import pytest
import torch
from mmdet.evaluation import CocoMetric
from mmengine.config import Config
from mmengine.registry import METRICS

from mmdet_hetconv.workflow.metrics import NumberedCocoMetric, use_own_metrics
from tests import tiny


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
    [lambda n: n - 1, lambda n: f'a{n}', lambda n: n - 3, lambda n: 2**63 + n, lambda n: -n],
    ids=['from 0', 'text', 'negative', 'hashes', 'falling'],
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


def scores_of(path: str, found: dict[int, list], **options) -> dict[str, float]:
    """Metrics of boxes [x1, y1, x2, y2, label] by image."""
    metric = NumberedCocoMetric(ann_file=path, **options)
    content = json.loads(Path(path).read_text())
    metric.dataset_meta = dict(classes=[c['name'] for c in content['categories']])
    for image in content['images']:
        rows = torch.tensor(found.get(image['id'], []), dtype=torch.float).reshape(-1, 5)
        instances = dict(bboxes=rows[:, :4], scores=torch.full((len(rows),), 0.9))
        instances['labels'] = rows[:, 4].long()
        size = tiny.SIZE[::-1]
        metric.process({}, [dict(img_id=image['id'], ori_shape=size, pred_instances=instances)])
    return metric.evaluate(len(content['images']))


def written(path, boxes: list[dict], categories=((1, 'cat'),), image=7) -> str:
    boxes = [
        dict(image_id=image, id=n, area=400, iscrowd=0, **{'category_id': 1, **box})
        for n, box in enumerate(boxes)
    ]
    content = dict(
        images=[dict(id=image, file_name='a.jpg', width=64, height=48)],
        annotations=boxes,
        categories=[dict(id=n, name=name) for n, name in categories],
    )
    path.write_text(json.dumps(content))
    return str(path)


def test_classes_keep_their_rows_whatever_the_order_of_their_ids(tmp_path):
    boxes = [dict(bbox=[5, 5, 20, 20]), dict(bbox=[40, 5, 10, 20], category_id=2)]
    path = written(tmp_path / 'a.json', boxes, ((2, 'dog'), (1, 'cat')))
    found = scores_of(path, {7: [[5, 5, 25, 25, 1]]}, classwise=True)
    assert (found['coco/cat_precision'], found['coco/dog_precision']) == (1.0, 0.0)


def test_difficult_objects_count_neither_way(tmp_path):
    boxes = [dict(bbox=[5, 5, 20, 20]), dict(bbox=[40, 5, 10, 20], ignore=1)]
    path = written(tmp_path / 'a.json', boxes)
    assert scores_of(path, {7: [[5, 5, 25, 25, 0]]})['coco/bbox_mAP'] == 1.0
    both = {7: [[5, 5, 25, 25, 0], [40, 5, 50, 25, 0]]}
    assert scores_of(path, both)['coco/bbox_mAP'] == 1.0


def test_no_detection_at_all_is_a_map_of_zero(tmp_path):
    path = written(tmp_path / 'a.json', [dict(bbox=[5, 5, 20, 20])])
    assert scores_of(path, {})['coco/bbox_mAP'] == 0.0


def test_results_that_are_written_have_the_files_ids(tmp_path):
    path = written(tmp_path / 'a.json', [dict(bbox=[5, 5, 20, 20])], ((40, 'cat'),), 2**63)
    content = json.loads((tmp_path / 'a.json').read_text())
    content['annotations'][0]['category_id'] = 40
    (tmp_path / 'a.json').write_text(json.dumps(content))
    found = scores_of(path, {2**63: [[5, 5, 25, 25, 0]]}, outfile_prefix=str(tmp_path / 'out'))
    assert found['coco/bbox_mAP'] == 1.0
    (result,) = json.loads((tmp_path / 'out.bbox.json').read_text())
    assert (result['image_id'], result['category_id']) == (2**63, 40)


@pytest.mark.parametrize('found, expected', [(True, 1.0), (False, 0.0)])
def test_the_truth_is_that_of_the_data_set_in_each_validation(found, expected):
    metric = NumberedCocoMetric()
    metric.dataset_meta = dict(classes=tiny.CLASSES)
    instances = [dict(bbox=[5, 5, 25, 25], bbox_label=1, ignore_flag=0)]
    rows = int(found)
    predicted = dict(
        bboxes=torch.tensor([[5.0, 5, 25, 25]] * rows).reshape(-1, 4),
        scores=torch.full((rows,), 0.9),
        labels=torch.ones(rows, dtype=torch.long),
    )
    for _ in range(2):
        for number in (2**63, 2**63 + 1, 'a'):
            sample = dict(img_id=number, ori_shape=(48, 64), pred_instances=predicted)
            metric.process({}, [dict(sample, instances=instances)])
        assert metric.evaluate(3)['coco/bbox_mAP'] == expected
