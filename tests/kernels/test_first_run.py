"""The bar of a first run."""

import torch
from torch import nn

from mmdet_hetconv.kernels import Plan, PlannedConv2d, first_run


def test_it_moves_once_for_each_convolution_that_ran(capsys):
    plan = Plan(frozen=True)
    model = nn.ModuleList(PlannedConv2d(nn.Conv2d(4, 4, 1), plan) for _ in range(4))
    with first_run(model):
        for number in (0, 1, 1, 2):
            model[number](torch.randn(1, 4, 3, 3))
    bar = capsys.readouterr().err
    assert bar.startswith('Timing kernels') and '75%' in bar
    assert not any(conv._forward_hooks for conv in model)
    with first_run(nn.Linear(1, 1)):
        pass
    assert not capsys.readouterr().err
