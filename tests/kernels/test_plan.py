"""The choice between candidates."""

import multiprocessing
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from mmengine.logging import MMLogger
from torch import nn

from mmdet_hetconv.kernels import Choice, Plan, PlannedConv2d, key, plan
from mmdet_hetconv.kernels.candidate import Candidate
from mmdet_hetconv.kernels.eager import PackedDenseNCHW, TwoBranchNCHW
from mmdet_hetconv.layers import HetConv2d

from .cases import build, expected


class Clock:
    """A millisecond passes between two readings, more where somebody says so."""

    now = 0.0

    def __call__(self):
        self.now += 0.001
        return self.now


clock = Clock()


class Slow(PackedDenseNCHW):
    """Ten milliseconds more than the others, by that clock."""

    name, dense = 'slow', False

    def compute(self, x, residual, relu):
        clock.now += 0.01
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
    (choice,) = of.choices.values()
    return choice


def test_fastest_is_chosen_and_kept(monkeypatch):
    use(monkeypatch, Slow, PackedDenseNCHW)
    layer, x = build('plain')
    conv = PlannedConv2d(layer, Plan(clock=clock))
    conv(x)
    choice = only_choice(conv.plan)
    assert choice.candidate == 'dense_nchw'
    assert choice.reason == 'timed'
    assert choice.ms['slow'] > 10 > choice.ms['dense_nchw']
    spent = conv.plan.spent_s
    conv(x)
    assert conv.plan.spent_s == spent


def test_layers_of_one_kind_are_timed_once(monkeypatch):
    """A kind: the same sizes and geometry, whatever the weights."""
    timed, original = [], plan.time_candidates

    def watched(candidates, weights, *rest):
        timed.append(weights.out_channels)
        return original(candidates, weights, *rest)

    monkeypatch.setattr(plan, 'time_candidates', watched)
    use(monkeypatch, TwoBranchNCHW, PackedDenseNCHW)
    shared = Plan()
    layers = [HetConv2d(16, width, 3, padding=1, p=2) for width in (16, 16, 16, 32)]
    model = nn.Sequential(*(PlannedConv2d(layer, shared) for layer in layers))
    x = torch.randn(1, 16, 9, 9)
    torch.testing.assert_close(model(x), nn.Sequential(*layers)(x), rtol=1e-4, atol=2e-5)
    assert timed == [16, 32]
    assert len(shared.choices) == 2
    model(torch.randn(1, 16, 30, 30))  # a size of another bucket
    assert timed == [16, 32] * 2


def test_failing_candidate_is_dropped_and_named(monkeypatch):
    use(monkeypatch, OutOfMemory, TwoBranchNCHW)
    layer, x = build('plain')
    conv = PlannedConv2d(layer)
    torch.testing.assert_close(conv(x).double(), expected(layer, x), rtol=1e-4, atol=2e-5)
    assert only_choice(conv.plan).candidate == 'two_branch_nchw'
    assert 'hungry: CUDA out of memory' in str(conv.plan)


def test_one_choice_for_a_bucket_of_sizes():
    assert [key.bucket(n) for n in (0, 1, 2, 3, 4, 5, 7, 13, 17, 25)] == [
        *(0, 1, 2, 3, 4, 6, 8, 16, 24, 32)
    ]
    layer, _ = build('plain')
    conv = PlannedConv2d(layer)
    for size in (17, 20, 24):
        conv(torch.randn(1, 32, size, size))
    assert len(conv.plan.choices) == 1
    conv(torch.randn(1, 32, 25, 24))
    assert len(conv.plan.choices) == 2


def test_spent_budget_falls_back_on_the_nearest(monkeypatch):
    use(monkeypatch, Slow, TwoBranchNCHW)
    layer, _ = build('plain')
    conv = PlannedConv2d(layer, Plan(clock=clock))
    conv(torch.randn(1, 32, 8, 8))
    conv.plan.budget_s = 0.0
    conv(torch.randn(1, 32, 50, 50))
    chosen = list(conv.plan.choices.values())[-1]
    assert (chosen.candidate, chosen.reason) == ('two_branch_nchw', 'nearest')
    # A choice that was not timed says nothing about others.
    other = PlannedConv2d(layer, Plan(budget_s=0.0))
    for size in (8, 50):
        other(torch.randn(1, 32, size, size))
    for choice in other.plan.choices.values():
        assert (choice.candidate, choice.reason) == ('slow', 'order')


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


@pytest.mark.parametrize('state', [3, [3], [{}], {'a': 3}, [dict(layer={})]])
def test_what_is_no_plan_is_refused(state):
    with pytest.raises(ValueError, match='not the state of a plan'):
        Plan().load_state_dict(state)


class Absent(PackedDenseNCHW):
    """Not to be had on this machine."""

    name = 'absent'

    @classmethod
    def why_not(cls, weights, x):
        return 'no compiler'


@pytest.mark.parametrize('reason', ['no compiler', 'it is unknown'])
def test_a_stored_choice_that_cannot_be_used_here(monkeypatch, caplog, reason):
    """It is dropped with one line for the whole plan, and chosen anew."""
    layer, x = build('plain')
    conv = PlannedConv2d(layer)
    conv(x)
    conv(x[..., :5])
    state = conv.plan.state_dict()
    for entry in state:
        entry['candidate'] = 'absent'
    names = [Absent] if reason == 'no compiler' else []
    use(monkeypatch, *names, TwoBranchNCHW, PackedDenseNCHW)
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    try:
        stored = Plan()
        stored.load_state_dict(state)
        again = PlannedConv2d(layer, stored)
        for part in (x, x[..., :5]):
            torch.testing.assert_close(
                again(part).double(), expected(layer, part), rtol=1e-4, atol=2e-5
            )
    finally:
        logger.removeHandler(caplog.handler)
    assert {c.candidate for c in stored.choices.values()} <= {'two_branch_nchw', 'dense_nchw'}
    assert {c.reason for c in stored.choices.values()} == {'timed'}
    (line,) = [r.getMessage() for r in caplog.records if 'plan' in r.msg]
    assert 'absent' in line and reason in line


def test_a_choice_is_for_one_model_of_processor(monkeypatch):
    layer, x = build('plain')
    conv = PlannedConv2d(layer)
    conv(x)
    monkeypatch.setattr(key, 'cpu_name', lambda: 'another one')
    PlannedConv2d(layer, conv.plan)(x)
    devices = {place.device for _, place in conv.plan.choices}
    assert len(devices) == 2
    assert any(name.startswith('another one, ') for name in devices)


def test_threads_share_a_model(monkeypatch):
    """Eight threads with shapes of their own; one of them times at once."""
    monkeypatch.setattr('mmdet_hetconv.kernels.planned_conv.MOST_SHAPES', 3)
    timing = []
    original = plan.time_candidates

    def watched(*args):
        timing.append(1)
        assert len(timing) == 1, 'two threads time at once'
        try:
            return original(*args)
        finally:
            timing.pop()

    monkeypatch.setattr(plan, 'time_candidates', watched)
    layer, _ = build('plain')
    conv = PlannedConv2d(layer)
    inputs = [torch.randn(1, 32, size, 7) for size in range(4, 12)]

    def work(x):
        with torch.no_grad():
            return [conv(x) for _ in range(20)]

    with ThreadPoolExecutor(8) as pool:
        for x, results in zip(inputs, pool.map(work, inputs)):
            for y in results:
                torch.testing.assert_close(y.double(), expected(layer, x), rtol=1e-4, atol=2e-5)


def test_a_forked_child_does_not_wait_for_its_parents_timing():
    held, done = threading.Event(), threading.Event()

    def hold():
        with plan._choosing:
            held.set()
            done.wait()

    def take():
        with plan._choosing:
            pass

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    try:
        child = multiprocessing.get_context('fork').Process(target=take)
        child.start()
        child.join(20)
        child.kill()
        assert child.exitcode == 0
    finally:
        done.set()
        holder.join()


def test_without_dense_no_dense_is_used():
    layer, x = build('plain')
    conv = PlannedConv2d(layer, Plan(dense=False))
    conv(x)
    choice = only_choice(conv.plan)
    assert not any(plan.BY_NAME[name].dense for name in choice.ms)
    assert choice.refused['dense_nchw'] == 'dense is not allowed'
    # A layer that is dense itself has no other.
    plain = PlannedConv2d(nn.Conv2d(3, 8, 3), Plan(dense=False))
    assert plain(torch.randn(1, 3, 5, 5)).shape == (1, 8, 3, 3)
