"""Losses that are NaN or infinite."""

from types import SimpleNamespace

import pytest
import torch

from mmdet_hetconv.comfort.training.hooks import finite_loss
from mmdet_hetconv.comfort.training.hooks.finite_loss import MOST, FiniteLossHook
from mmdet_hetconv.utils.errors import UserError

NAN, INF = float('nan'), float('inf')


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr(finite_loss, 'print_log', lambda text, *a: lines.append(text))
    return lines


def run(losses, length=100):
    """Steps with these losses, in epochs of `length`."""
    hook = FiniteLossHook()
    runner = SimpleNamespace(
        iter=0,
        train_dataloader=range(length),
        optim_wrapper=SimpleNamespace(param_groups=[dict(lr=0.02)]),
    )
    hook.before_train(runner)
    for number, loss in enumerate(losses):
        runner.iter = number
        parts = dict(loss=torch.tensor(1 + loss), loss_cls=torch.tensor(loss), acc=NAN)
        hook.after_train_iter(runner, number % length, None, parts)


def test_each_is_told_and_ten_in_a_row_are_the_end(said):
    run([1.0, NAN, 1.0, INF] * 20)
    assert said[:2] == ['step 2: loss_cls is nan', 'step 4: loss_cls is inf']
    assert len(said) == 40
    message = 'loss_cls is nan at step 13, no loss was finite after step 3: .*it was 0.02 here'
    with pytest.raises(UserError, match=message):
        run([1.0] * 3 + [NAN] * MOST)


def test_an_epoch_without_a_finite_loss_is_the_end(said):
    run([1.0, NAN, NAN, 1.0], length=2)
    with pytest.raises(UserError, match='at step 6, no loss was finite after step 3'):
        run([1.0] * 3 + [NAN] * 3, length=3)


def test_a_total_of_parts_that_are_finite(said):
    hook = FiniteLossHook()
    hook.before_train(None)
    runner = SimpleNamespace(iter=4, train_dataloader=range(9))
    hook.after_train_iter(runner, 0, None, dict(loss=torch.tensor(INF), loss_a=torch.tensor(1.0)))
    assert said == ['step 5: loss is inf']
