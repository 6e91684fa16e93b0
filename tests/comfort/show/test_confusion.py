"""Which class is taken for which."""

import numpy as np
import pytest
import torch

from mmdet_hetconv.comfort.show import confusion
from mmdet_hetconv.comfort.show.confusion import ConfusionMatrix, match

TRUTH = [
    dict(bbox=[0, 0, 10, 10], bbox_label=0, ignore_flag=0),
    dict(bbox=[20, 0, 30, 10], bbox_label=1, ignore_flag=0),
    dict(bbox=[40, 0, 50, 10], bbox_label=1, ignore_flag=1),
]


def found(*detections):
    boxes, scores, labels = zip(*detections)
    return torch.tensor(boxes), torch.tensor(scores), torch.tensor(labels)


@pytest.mark.parametrize(
    'detections, pairs',
    [
        ([([0, 0, 10, 10], 0.9, 0), ([20, 0, 30, 10], 0.9, 1)], [(0, 0), (1, 1)]),
        # That of its class, though another is surer; of another class, if there is no such.
        ([([0, 0, 10, 10], 0.5, 0), ([0, 0, 10, 9], 0.6, 1)], [(0, 0), (-1, 1), (1, -1)]),
        ([([0, 0, 10, 9], 0.6, 1), ([20, 0, 30, 10], 0.9, 1)], [(1, 1), (0, 1)]),
        # Inside of a crowd of its class.
        ([([42, 2, 44, 4], 0.9, 1)], [(0, -1), (1, -1)]),
        # Too far off, and too unsure.
        ([([0, 0, 10, 4], 0.9, 0), ([20, 0, 30, 10], 0.2, 1)], [(-1, 0), (0, -1), (1, -1)]),
        # What is ignored may be found as often as one likes.
        ([([40, 0, 50, 10], 0.9, 0), ([40, 0, 50, 10], 0.8, 1)], [(0, -1), (1, -1)]),
    ],
)
def test_pairs(detections, pairs):
    assert match(*found(*detections), TRUTH) == pairs


def test_nothing_is_found_and_nothing_is_there():
    nothing = torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.long)
    assert match(*nothing, TRUTH) == [(0, -1), (1, -1)]
    assert match(*found(([0, 0, 1, 1], 0.9, 1)), []) == [(-1, 1)]


class Data:
    metainfo = dict(classes=('a', 'b'))

    def __len__(self):
        return 2

    def get_data_info(self, number):
        return dict(img_id=f'image {number}', instances=TRUTH[number:])


def test_the_picture_has_all_pairs(tmp_path, monkeypatch):
    drawn = []
    draw = confusion.draw
    monkeypatch.setattr(confusion, 'draw', lambda *words: (drawn.append(words[0]), draw(*words)))
    metric = ConfusionMatrix(Data(), tmp_path / 'a.png')
    boxes, scores, labels = found(([0, 0, 10, 10], 0.9, 0), ([20, 0, 30, 10], 0.9, 0))
    instances = dict(bboxes=boxes, scores=scores, labels=labels)
    samples = [dict(img_id=f'image {n}', pred_instances=instances) for n in (1, 0)]
    metric.process(None, samples)
    assert metric.evaluate(2) == {}
    (counts,) = drawn
    assert np.array_equal(counts, [[1, 0, 0], [2, 0, 0], [1, 0, 0]])
    assert (tmp_path / 'a.png').read_bytes()[:4] == b'\x89PNG'
