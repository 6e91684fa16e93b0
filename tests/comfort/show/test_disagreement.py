"""Disagreement of two sets of boxes, against worked examples."""

import pytest
import torch

from mmdet_hetconv.comfort.show.comparison.disagreement import disagreement


def boxes(*entries):
    """Of (x, score, label): squares of 10 x 10 pixels."""
    return dict(
        boxes=torch.tensor([[x, 0.0, x + 10.0, 10.0] for x, _, _ in entries]).reshape(-1, 4),
        scores=torch.tensor([score for _, score, _ in entries]),
        labels=torch.tensor([label for _, _, label in entries], dtype=torch.long),
    )


ONE = boxes((0, 0.9, 1))
CASES = {
    'same': (ONE, ONE, 0.0),
    'nothing': (boxes(), boxes(), 0.0),
    'only one has any': (ONE, boxes(), 1.0),
    'other class': (ONE, boxes((0, 0.9, 0)), 1.0),
    'apart': (ONE, boxes((50, 0.9, 1)), 1.0),
    # 8 of 12 pixels a row are shared.
    'overlap': (ONE, boxes((2, 0.9, 1)), 1 - 8 / 12),
    # 6 of 14: less than a half is no partner.
    'little overlap': (ONE, boxes((4, 0.9, 1)), 1.0),
    # A pair of IoU 1, one without a partner: 1 - 1 / (1 + 1 / 2).
    'one more': (ONE, boxes((0, 0.9, 1), (50, 0.9, 1)), 1 / 3),
    # A box has one partner, the better one.
    'doubled': (ONE, boxes((2, 0.9, 1), (0, 0.8, 1)), 1 / 3),
    'faint': (ONE, boxes((0, 0.9, 1), (50, 0.2, 1)), 0.0),
}


@pytest.mark.parametrize('case', CASES)
def test_worked_examples(case):
    a, b, want = CASES[case]
    assert disagreement(a, b, 0.3) == pytest.approx(want)
    assert disagreement(b, a, 0.3) == pytest.approx(want)
