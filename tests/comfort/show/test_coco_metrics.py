"""COCO's numbers for detections whose quality is known."""

import copy

import pytest

from mmdet_hetconv.comfort.show.comparison.coco_metrics import coco_metrics


def content():
    """Two images with one box of each of two classes, 40 x 40 pixels."""
    return dict(
        images=[dict(id=i, width=200, height=200) for i in (1, 2)],
        categories=[dict(id=c, name=str(c)) for c in (3, 4)],
        annotations=[
            dict(
                id=10 * i + c,
                image_id=i,
                category_id=c,
                bbox=[10.0 * c, 20, 40, 40],
                area=1600,
                iscrowd=0,
            )
            for i in (1, 2)
            for c in (3, 4)
        ],
    )


def results(annotations):
    return [
        dict(image_id=a['image_id'], category_id=a['category_id'], bbox=list(a['bbox']), score=0.9)
        for a in annotations
    ]


def test_perfect():
    truth = content()
    found = coco_metrics(truth, [1, 2], results(truth['annotations']))
    for name in ('AP', 'AP50', 'AP75', 'AP medium', 'AR100'):
        assert found[name] == pytest.approx(1)
    assert found['AP small'] == found['AP large'] == -1


@pytest.mark.parametrize('ids', [range(4), 'abcd', [-1, 0, 2**60, 5]])
def test_ids_of_any_kind(ids):
    """pycocotools takes the id 0 for a box that nothing matches."""
    truth = content()
    for box, number in zip(truth['annotations'], ids, strict=True):
        box['id'] = number
    found = coco_metrics(truth, [1, 2], results(truth['annotations']))
    assert found['AP'] == pytest.approx(1)
    assert [box['id'] for box in truth['annotations']] == list(ids)


def test_a_class_missed_and_boxes_shifted():
    truth = content()
    found = results(a for a in truth['annotations'] if a['category_id'] == 3)
    for entry in found:
        entry['bbox'][0] += 10  # IoU 30 / 50
    metrics = coco_metrics(truth, [1, 2], found)
    assert metrics['AP50'] == pytest.approx(1 / 2)
    # Of the ten thresholds 0.5, 0.55 and 0.6 are met.
    assert metrics['AP'] == pytest.approx(3 / 10 / 2)
    assert metrics['AP75'] == 0


def test_only_images_that_were_looked_at_count():
    truth = content()
    first = [a for a in truth['annotations'] if a['image_id'] == 1]
    assert coco_metrics(truth, [1], results(first))['AP'] == pytest.approx(1)
    assert coco_metrics(truth, [1, 2], results(first))['AP'] < 0.6


def test_nothing_found_changes_nothing():
    truth = content()
    before = copy.deepcopy(truth)
    assert coco_metrics(truth, [1, 2], [])['AP'] == 0
    assert truth == before
