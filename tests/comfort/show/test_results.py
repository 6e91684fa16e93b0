"""COCO's results format, masks included."""

import json

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from pycocotools import mask as rle

from mmdet_hetconv.comfort.show.results import coco_results, default_image_id


def sample(**more):
    found = DetDataSample()
    found.pred_instances = InstanceData(
        bboxes=torch.tensor([[1.0, 2.0, 5.5, 9.0], [0.0, 0.0, 3.0, 3.0]]),
        scores=torch.tensor([0.75, 0.25]),
        labels=torch.tensor([1, 0]),
        **more,
    )
    return found


def test_boxes():
    first, second = coco_results(sample(), 7, [11, 22])
    assert first == dict(image_id=7, category_id=22, bbox=[1.0, 2.0, 4.5, 7.0], score=0.75)
    assert second['category_id'] == 11


def test_masks():
    masks = torch.zeros(2, 10, 12, dtype=torch.bool)
    masks[0, 2:9, 1:5] = True
    entries = coco_results(sample(masks=masks), 7, [11, 22])
    again = json.loads(json.dumps(entries))
    for entry, mask in zip(again, masks):
        decoded = torch.from_numpy(rle.decode(entry['segmentation']))
        assert torch.equal(decoded.bool(), mask)


@pytest.mark.parametrize(
    'name, want', [('000000000139.jpg', 139), ('12', 12), ('a/b.jpg', 'a/b.jpg')]
)
def test_ids_without_annotations(name, want):
    assert default_image_id(name) == want
