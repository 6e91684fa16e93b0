"""The choice between candidates."""

import copy
import time

import pytest
import torch
from torch import nn

from mmdet_hetconv.kernels import (
    Choice,
    Plan,
    PlannedConv2d,
    plan,
    take_weights,
)
from mmdet_hetconv.kernels.candidate import Candidate
from mmdet_hetconv.kernels.eager import PackedDenseNCHW, TwoBranchNCHW
from mmdet_hetconv.layers import HetConv2d

from .cases import CASES, build, expected


class Slow(PackedDenseNCHW):
    """Ten milliseconds more than it needs."""

    name, dense = 'slow', False

    def compute(self, x, residual, relu):
        time.sleep(0.01)
        return super().compute(x, residual, relu)


class OutOfMemory(PackedDenseNCHW):
    """Runs out of memory."""

    name, dense = 'hungry', False

    def compute(self, x, residual, relu):
        raise torch.OutOfMemoryError('CUDA out of memory')


def use(monkeypatch, *candidates: type[Candidate]) -> None:
    monkeypatch.setattr(plan, 'CANDIDATES', candidates)
    monkeypatch.setattr(plan, 'BY_NAME', {c.name: c for c in candidates})


def only_choice(of: Plan) -> Choice:
    ((_, known),) = of.choices.items()
    ((_, choice),) = known.items()
    return choice


@pytest.mark.parametrize('case', CASES)
def test_layer_equals_its_inference_form(case):
    layer, x = build(case)
    deployed = PlannedConv2d(layer)
    torch.testing.assert_close(
        deployed(x).double(), expected(layer, x), rtol=1e-4, atol=2e-5
    )


def test_fastest_is_chosen_and_kept(monkeypatch):
    use(monkeypatch, Slow, PackedDenseNCHW)
    layer, x = build('plain')
    conv = PlannedConv2d(layer)
    conv(x)
    choice = only_choice(conv.plan)
    assert choice.candidate == 'dense_nchw'
    assert choice.reason == 'timed'
    assert choice.ms['slow'] > 10 > choice.ms['dense_nchw']
    spent = conv.plan.spent_s
    conv(x)
    assert conv.plan.spent_s == spent


def test_never_slower_than_dense_in_its_own_timing():
    layer, x = build('narrow')
    conv = PlannedConv2d(layer)
    conv(x)
    choice = only_choice(conv.plan)
    assert choice.ms[choice.candidate] <= choice.dense_ms()


def test_failing_candidate_is_dropped_and_named(monkeypatch):
    use(monkeypatch, OutOfMemory, TwoBranchNCHW)
    layer, x = build('plain')
    conv = PlannedConv2d(layer)
    torch.testing.assert_close(
        conv(x).double(), expected(layer, x), rtol=1e-4, atol=2e-5
    )
    assert only_choice(conv.plan).candidate == 'two_branch_nchw'
    assert 'hungry: CUDA out of memory' in conv.plan.summary()


def test_one_choice_for_a_bucket_of_sizes():
    assert [plan.bucket(n) for n in (0, 1, 2, 3, 4, 5, 7, 13, 17, 25)] == [
        *(0, 1, 2, 3, 4, 6, 8, 16, 24, 32)
    ]
    layer, _ = build('plain')
    conv = PlannedConv2d(layer)
    for size in (17, 20, 24):
        conv(torch.randn(1, 32, size, size))
    (known,) = conv.plan.choices.values()
    assert len(known) == 1
    conv(torch.randn(1, 32, 25, 24))
    assert len(known) == 2


def test_spent_budget_falls_back_on_the_nearest(monkeypatch):
    use(monkeypatch, TwoBranchNCHW, PackedDenseNCHW)
    layer, _ = build('plain')
    conv = PlannedConv2d(layer, Plan(budget_s=0.0))
    x = torch.randn(1, 32, 8, 8)
    conv(x)
    assert only_choice(conv.plan).reason == 'order'
    assert only_choice(conv.plan).candidate == 'two_branch_nchw'
    (layer_key,) = conv.plan.choices
    (place,) = conv.plan.choices[layer_key]
    conv.plan.fix(layer_key, place, 'dense_nchw')
    conv(torch.randn(1, 32, 50, 50))
    chosen = list(conv.plan.choices[layer_key].values())[-1]
    assert (chosen.candidate, chosen.reason) == ('dense_nchw', 'nearest')


def test_untimed_dense_layer_is_left_to_the_libraries():
    conv = PlannedConv2d(nn.Conv2d(16, 16, 3), Plan(frozen=True))
    conv(torch.randn(1, 16, 8, 8))
    name = only_choice(conv.plan).candidate
    assert plan.BY_NAME[name].dense


def test_plan_survives_a_checkpoint_and_is_reproducible(tmp_path):
    layer, x = build('plain')
    conv = PlannedConv2d(layer)
    conv(x)
    torch.save(conv.plan.state_dict(), tmp_path / 'plan.pth')
    again = Plan(frozen=True)
    again.load_state_dict(torch.load(tmp_path / 'plan.pth'))
    assert again.choices == conv.plan.choices
    second = PlannedConv2d(layer, again)
    assert torch.equal(second(x), conv(x))
    assert again.spent_s == 0


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="'teapot'"):
        Plan(only=['teapot'])
    with pytest.raises(ValueError, match="'teapot'"):
        Plan().fix('layer', 'place', 'teapot')
    with pytest.raises(ValueError, match="'teapot'"):
        Plan().load_state_dict({'a': {'b': dict(candidate='teapot')}})


def test_without_dense_no_dense_is_used():
    layer, x = build('plain')
    conv = PlannedConv2d(layer, Plan(dense=False))
    conv(x)
    choice = only_choice(conv.plan)
    assert choice.dense_ms() is None
    assert choice.refused['dense_nchw'] == 'dense is not allowed'
    # A layer that is dense itself has no other.
    plain = PlannedConv2d(nn.Conv2d(3, 8, 3), Plan(dense=False))
    assert plain(torch.randn(1, 3, 5, 5)).shape == (1, 8, 3, 3)


@pytest.mark.parametrize('shape', [(0, 32, 9, 9), (32, 9, 9)])
def test_empty_batch_and_single_image(shape):
    layer, _ = build('plain')
    x = torch.randn(shape)
    y = PlannedConv2d(layer)(x)
    assert y.shape == layer(x).shape
    torch.testing.assert_close(y, layer(x), rtol=1e-4, atol=2e-5)


def test_dense_layer_has_a_plan_too():
    layer = nn.Conv2d(3, 16, 7, 2, 3).requires_grad_(False)
    x = torch.randn(2, 3, 20, 20)
    torch.testing.assert_close(
        PlannedConv2d(layer, relu=True)(x),
        layer(x).relu(),
        rtol=1e-4,
        atol=2e-5,
    )


def test_prepared_weights_follow_load_and_copy():
    layer, x = build('plain')
    conv = PlannedConv2d(layer)
    y = conv(x)
    assert conv.extra_bytes() > 0
    double = copy.deepcopy(conv)
    assert torch.equal(double(x), y)
    state = {k: 2 * v for k, v in conv.state_dict().items()}
    conv.load_state_dict(state)
    torch.testing.assert_close(conv(x), 2 * y, rtol=1e-4, atol=2e-5)
    assert torch.equal(double(x), y)


def test_autocast_and_half_weights():
    layer, x = build('plain')
    with torch.autocast('cpu', torch.bfloat16):
        y = PlannedConv2d(layer)(x)
    assert y.dtype == torch.bfloat16
    half = PlannedConv2d(layer).to(torch.bfloat16)(x.bfloat16())
    for got in (y, half):
        torch.testing.assert_close(
            got.double(), expected(layer, x), rtol=0.05, atol=0.05
        )


def test_input_gradient_is_the_layers():
    layer, x = build('plain')
    x.requires_grad_()
    (mine,) = torch.autograd.grad(PlannedConv2d(layer)(x).sum(), x)
    (theirs,) = torch.autograd.grad(layer(x).sum(), x)
    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=2e-5)


def test_shapes_without_an_inference_form_are_refused():
    layer = HetConv2d(8, 8, 3, padding=1, padding_mode='reflect', p=2)
    with pytest.raises(ValueError, match='reflect'):
        take_weights(layer)


def test_ever_new_sizes_do_not_fill_the_memory(monkeypatch):
    monkeypatch.setattr('mmdet_hetconv.kernels.planned_conv.MOST_SHAPES', 10)
    layer, _ = build('plain')
    conv = PlannedConv2d(layer, Plan(frozen=True))
    for size in range(3, 60):
        x = torch.randn(1, layer.in_channels, size, size)
        assert conv(x).shape == layer(x).shape
        assert len(conv._chosen) <= 10
    assert len(conv._prepared) == 1
    (known,) = conv.plan.choices.values()
    assert len(known) == 10  # buckets: 3, 4, 6, 8, 12, 16, 24, 32, 48, 64
