import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mmdet_hetconv.convert import convert_model, distil, make_dense
from mmdet_hetconv.convert.distillation.features import feature_errors, find_taps, tapped
from mmdet_hetconv.convert.distillation.predictions import find_predictors, prediction_errors


class Head(nn.Module):
    """One class and the background, one anchor."""

    cls_out_channels = 2
    use_sigmoid_cls = False
    prior_generator = SimpleNamespace(num_base_priors=[1])

    def __init__(self):
        super().__init__()
        self.scores = nn.Conv2d(8, 2, 1)
        self.boxes = nn.Conv2d(8, 4, 1)

    def forward(self, x):
        return [self.scores(x)], [self.boxes(x)]


class Detector(nn.Module):
    """As mmdet's detectors it calls the head's forward itself."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        self.stage = nn.Sequential(nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        self.head = Head()

    def forward(self, x):
        return self.head.forward(self.stage(self.backbone(x)))


def levels(rows):
    """(anchors, numbers) as one level of one image, an anchor at each position."""
    return [torch.tensor(rows).t()[None, :, :, None]]


def head(cls_out_channels, use_sigmoid_cls, anchors=1):
    return SimpleNamespace(
        cls_out_channels=cls_out_channels,
        use_sigmoid_cls=use_sigmoid_cls,
        prior_generator=SimpleNamespace(num_base_priors=[anchors]),
    )


SOFTMAX = head(2, False)
SIGMOID = head(1, True)


def test_softmax_errors_count_where_there_are_objects():
    sure = math.log(3)  # 3/4 object, 1/4 background
    dense = levels([[sure, 0.0], [-50.0, 50.0]]), levels([[1.0] * 4, [9.0] * 4])
    het = levels([[0.0, 0.0], [-50.0, 40.0]]), levels([[1.5] * 4, [0.0] * 4])
    errors = prediction_errors(SOFTMAX, het, dense)
    # One object at most is expected, so the divergence is divided by 1.
    divergence = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert errors['scores'].item() == pytest.approx(divergence, abs=1e-6)
    assert errors['boxes'].item() == pytest.approx(4 * 0.5, abs=1e-6)


def test_sigmoid_errors_are_those_of_each_class():
    dense, het = levels([[math.log(3)]] * 8), levels([[0.0]] * 8)
    errors = prediction_errors(SIGMOID, (het,), (dense,))
    divergence = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert errors.keys() == {'scores'}
    # Eight anchors, six objects.
    assert errors['scores'].item() == pytest.approx(8 / 6 * divergence, abs=1e-6)


def test_anchors_are_those_of_mmdet():
    # Two anchors a position: mmdet takes channels 0 and 1 for the first.
    dense = torch.tensor([5.0, -5.0, -5.0, 5.0]).reshape(1, 4, 1, 1)
    boxes = torch.arange(8.0).reshape(1, 8, 1, 1)
    moved = boxes.clone()
    moved[:, 4:] += 1  # of the second anchor, which is background
    errors = prediction_errors(head(2, False, 2), ([dense], [moved]), ([dense], [boxes]))
    assert errors['scores'].item() == pytest.approx(0, abs=1e-6)
    assert errors['boxes'].item() < 1e-3


@pytest.mark.parametrize(
    'outputs',
    [
        torch.ones(2, 4),
        (torch.ones(2, 4),),
        ([],),
        (),
        None,
        # As a stage of a cascade RPN returns them, boxes first.
        ([torch.ones(1, 4, 3, 3)], [torch.ones(1, 2, 3, 3)]),
    ],
)
def test_of_other_outputs_nothing_is_compared(outputs):
    assert prediction_errors(SOFTMAX, outputs, outputs) == {}


def test_a_head_whose_forward_is_called_itself_is_compared_and_left_as_it_was():
    torch.manual_seed(0)
    dense, het = Detector().eval(), Detector().eval()
    convert_model(het, p=2, exclude=('backbone.*', 'head.*'))
    assert find_predictors(het) == ['head']
    assert 'head' in find_taps(het)
    x = torch.rand(2, 3, 12, 12)
    with torch.no_grad():
        with tapped(dense, find_taps(het)) as theirs:
            dense(x)
        with tapped(het, find_taps(het)) as mine:
            het(x)
    errors = feature_errors(het, mine, theirs)
    assert errors['head', 'scores'] > 0
    assert errors['head', 'boxes'] > 0
    assert not any('forward' in module.__dict__ for module in dense.modules())


def test_distillation_brings_predictions_nearer(monkeypatch):
    monkeypatch.setattr('mmdet_hetconv.convert.distillation.batches.IMAGES', 8)
    torch.manual_seed(0)
    dense, het = Detector().eval(), Detector().eval()
    convert_model(het, p=2, exclude=('backbone.*', 'head.*'))
    state = dense.state_dict()
    het.load_state_dict({key: state.get(key, value) for key, value in het.state_dict().items()})
    batches = list(torch.rand(8, 4, 3, 12, 12))

    def error():
        with torch.no_grad():
            outputs = [model(torch.cat(batches)) for model in (het, dense)]
        return prediction_errors(het.head, *outputs)['boxes'].item()

    before = error()
    distil(dense, het, batches, steps=60)
    assert error() < 0.5 * before


def test_of_equal_functions_all_errors_are_0():
    torch.manual_seed(0)
    het = Detector().eval()
    convert_model(het, p=2, exclude=('backbone.*', 'head.*'))
    dense = make_dense(het)
    x = torch.rand(2, 3, 12, 12)
    with tapped(dense, find_taps(het)) as theirs:
        dense(x)
    with tapped(het, find_taps(het)) as mine:
        het(x)
    errors = feature_errors(het, mine, theirs)
    assert {('head', 'scores'), ('head', 'boxes')} < errors.keys()
    assert max(error.item() for error in errors.values()) < 1e-5
