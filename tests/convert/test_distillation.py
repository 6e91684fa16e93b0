import copy

import pytest
import torch
from mmengine.structures import BaseDataElement
from torch import nn

from mmdet_hetconv.convert import calibrate, convert_model, distil
from mmdet_hetconv.convert.distillation.batches import Draws
from mmdet_hetconv.convert.distillation.features import (
    Features,
    channel_error,
    find_taps,
    last_call,
    relative_errors,
)

from .test_calibration import Net, batches, loss, nets  # noqa: F401


@pytest.fixture
def calibrated(nets, monkeypatch):  # noqa: F811
    monkeypatch.setattr('mmdet_hetconv.convert.distillation.batches.IMAGES', 8)
    dense, het = nets
    calibrate(dense, het, batches())
    return dense, het


def test_it_comes_nearer_to_the_dense_network(calibrated):
    dense, het = calibrated
    before = loss(dense, het)
    states = copy.deepcopy((dense.state_dict(), het.state_dict()))
    report = distil(dense, het, batches(), steps=60)
    assert report.after < 0.9 * report.before
    assert report.steps == 60
    assert report.stopped == 'done'
    assert loss(dense, het) < before
    assert all(value.equal(states[0][key]) for key, value in dense.state_dict().items())
    # Only HetConv layers and norms learn, and no statistics move.
    changed = {key for key, value in het.state_dict().items() if not value.equal(states[1][key])}
    assert changed
    assert not any('stem' in key or 'running' in key or 'unused' in key for key in changed)
    assert all(parameter.requires_grad for parameter in het.parameters())
    assert not (dense.training or het.training)


def test_the_same_seed_gives_the_same_weights(calibrated):
    dense, het = calibrated
    again = copy.deepcopy(het)
    for model in (het, again):
        distil(dense, model, batches(), steps=3, seed=5)
    state = again.state_dict()
    assert all(value.equal(state[key]) for key, value in het.state_dict().items())


def test_ctrl_c_keeps_the_best_so_far(calibrated):
    dense, het = calibrated
    lines = []

    def interrupt(line):
        lines.append(line)
        if len(lines) == 15:
            raise KeyboardInterrupt

    report = distil(dense, het, batches(), steps=60, log=interrupt)
    assert report.stopped == 'interrupted'
    assert report.steps < 60
    assert report.after == min(error for _, error in report.history) < report.before
    assert 's left' in lines[0]


def test_an_error_leaves_the_networks_as_they_were(calibrated):
    dense, het = calibrated
    first = next(het.parameters()).requires_grad_(False)
    before = {key: value.clone() for key, value in het.state_dict().items()}
    flags = [p.requires_grad for p in het.parameters()]
    state = torch.get_rng_state()
    calls = 0

    def fails(model, batch):
        nonlocal calls
        calls += 1
        if calls > 12:
            raise RuntimeError('of the network')
        return model(batch)

    with torch.no_grad(), pytest.raises(RuntimeError, match='of the network'):
        distil(dense, het, batches(), fails, steps=1000)
    first.requires_grad_(True)
    assert all(torch.equal(value, before[key]) for key, value in het.state_dict().items())
    assert [p.requires_grad for p in het.parameters()] == [True, *flags[1:]]
    assert all(p.grad is None for p in (*dense.parameters(), *het.parameters()))
    assert not any('forward' in vars(m) for net in (dense, het) for m in net.modules())
    assert torch.equal(torch.get_rng_state(), state)


def test_what_gets_worse_is_taken_back(calibrated, monkeypatch):
    dense, het = calibrated
    monkeypatch.setattr('mmdet_hetconv.convert.distillation.distil.RATE', 10.0)
    state = copy.deepcopy(het.state_dict())
    report = distil(dense, het, batches(), steps=40)
    assert report.stopped in ('no gain', 'not finite')
    assert report.steps < 40
    assert report.after == report.before
    assert all(value.equal(state[key]) for key, value in het.state_dict().items())


def test_a_rate_that_throws_a_network_is_lowered_once(plain, monkeypatch):
    dense, het = plain
    monkeypatch.setattr('mmdet_hetconv.convert.distillation.distil.RATE_WITHOUT_NORMS', 2e-2)
    report = distil(dense, het, batches(), steps=100)
    first = [error for _, error in report.history[:6]]
    assert min(first) > report.before
    assert report.after < report.before


def test_time_ends_it(calibrated):
    report = distil(*calibrated, batches(), minutes=1e-3)
    assert report.stopped == 'done'
    assert report.seconds < 30


def test_mistakes_are_said(calibrated):
    dense, het = calibrated
    with pytest.raises(ValueError, match='at least one batch'):
        distil(dense, het, [])
    with pytest.raises(ValueError, match='no HetConv layer'):
        distil(dense, dense, batches())
    with pytest.raises(ValueError, match='cannot take images from a int'):
        distil(dense, het, [3, 4])
    with pytest.raises(ValueError, match='not finite'):
        distil(dense, het, [torch.full((2, 3, 16, 16), torch.nan)])


def test_blocks_are_compared_and_layers_of_a_list_behind_their_norms():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(8, 8, 3)

    model = nn.Sequential(
        nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), Block(), nn.Conv2d(8, 8, 3), nn.ReLU()
    )
    convert_model(model, p=2)
    assert find_taps(model) == ['', '1', '3', '4']


def test_a_tensor_counts_once_and_other_numbers_of_images_do_not():
    one, two = torch.ones(2, 3), torch.full((2, 3), 2.0)
    rois = torch.ones(5, 3)
    mine = Features(dict(a=[one], b=[one, rois]), ['a', 'a', 'b'])
    errors = relative_errors(mine, Features(dict(a=[two], b=[two, rois])))
    assert {key: value.item() for key, value in errors.items()} == {('a', 0): 0.25}
    assert last_call(mine, errors) == ('a', 2)


def test_images_of_a_detector_are_cropped_alike():
    def batch(height, width):
        image = torch.randint(256, (3, height, width), dtype=torch.uint8)
        sample = BaseDataElement(metainfo=dict(img_shape=(height, width), scale_factor=1))
        return dict(inputs=[image], data_samples=[sample])

    given = [batch(40, 60), batch(60, 40), batch(700, 48)]
    drawn = Draws(given, torch.Generator().manual_seed(0)).draw()
    shapes = {tuple(image.shape) for image in drawn['inputs']}
    assert shapes == {(3, 40, 40)}
    assert {image.dtype for image in drawn['inputs']} == {torch.uint8}
    assert all(sample.img_shape == (40, 40) for sample in drawn['data_samples'])
    assert given[0]['data_samples'][0].img_shape == (40, 60)


class Plain(nn.Module):
    """Without norms; layers as attributes, functions between them; boxes beside scores."""

    def __init__(self):
        super().__init__()
        for number, (a, b) in enumerate([(3, 8), (8, 8), (8, 8), (8, 8), (8, 8)]):
            self.add_module(f'conv{number}', nn.Conv2d(a, b, 3, padding=1))
        self.last = nn.Conv2d(8, 6, 1)

    def forward(self, x):
        for number in range(5):
            x = torch.nn.functional.leaky_relu(getattr(self, f'conv{number}')(x), 0.1)
        y = self.last(x)
        return torch.cat([1e3 * y[:, :4], y[:, 4:]], dim=1)


@pytest.fixture
def plain(monkeypatch):
    monkeypatch.setattr('mmdet_hetconv.convert.distillation.batches.IMAGES', 8)
    torch.manual_seed(0)
    dense = Plain().eval()
    het = copy.deepcopy(dense)
    convert_model(het, p=2)
    calibrate(dense, het, batches())
    return dense, het


def test_layers_of_one_module_are_compared_one_by_one(plain):
    _, het = plain
    assert find_taps(het) == ['', *(f'conv{number}' for number in range(1, 5))]


def test_what_is_kept_is_judged_by_the_outputs_channel_by_channel(plain):
    dense, het = plain
    before = {key: value.clone() for key, value in het.state_dict().items()}
    report = distil(dense, het, batches(), steps=60)
    assert report.after < report.before
    changed = {key for key, value in het.state_dict().items() if not value.equal(before[key])}
    # No norms: all layers learn.
    assert {key.partition('.')[0] for key in changed} >= {'conv0', 'conv4', 'last'}
    # Boxes in pixels do not drown the scores.
    x = batches()[0]
    with torch.no_grad():
        wanted, found = dense(x), het(x)
        het.load_state_dict(before)
        start = het(x)
    assert channel_error(found, wanted) < channel_error(start, wanted)
    assert (found - wanted)[:, 4:].square().sum() < (start - wanted)[:, 4:].square().sum()


def test_a_loss_of_the_users_own(plain):
    dense, het = plain
    seen = []

    def scores_alone(output, wanted):
        seen.append(output.shape)
        return (output[:, 4:] - wanted[:, 4:]).square().mean()

    report = distil(dense, het, batches(), steps=20, loss=scores_alone)
    assert report.after <= report.before
    assert seen[0][1] == 6
    x = batches()[0]
    with torch.no_grad():
        error = (het(x) - dense(x))[:, 4:].square().mean()
    assert error < 2 * report.before + 1e-6


def test_only_converted_layers_learn_if_asked(plain):
    dense, het = plain
    before = {key: value.clone() for key, value in het.state_dict().items()}
    distil(dense, het, batches(), steps=10, learn='converted')
    changed = {key for key, value in het.state_dict().items() if not value.equal(before[key])}
    assert changed and not any(key.startswith(('conv0', 'last')) for key in changed)
    with pytest.raises(ValueError, match="learn='some' is neither"):
        distil(dense, het, batches(), steps=1, learn='some')


@pytest.mark.parametrize(
    'shape, axis',
    [((2, 3), 1), ((2, 3, 4, 5), 1), ((2, 6, 50), 1), ((2, 50, 6), 2)] + [((2, 3, 4, 5, 7), 4)],
)
def test_channels_count_alike(shape, axis):
    torch.manual_seed(0)
    dense = torch.randn(shape)
    scale = torch.ones(shape[axis]).scatter(0, torch.tensor([0]), 1e3)
    scale = scale.view([-1 if i == axis else 1 for i in range(len(shape))])
    off = dense + 0.1 * torch.randn(shape)
    torch.testing.assert_close(
        channel_error(scale * off, scale * dense), channel_error(off, dense), rtol=0.5, atol=0
    )
    assert channel_error(dense, dense) == 0
