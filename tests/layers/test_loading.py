"""Weights of another arrangement, loaded by who goes on after the error."""

import itertools

import pytest
import torch
from mmengine.runner.checkpoint import load_state_dict
from torch import nn

from mmdet_hetconv.kernels import Plan, PlannedConv2d
from mmdet_hetconv.layers import HetConv2d

ARRANGEMENTS = ('blocked', 'shifted', 'permuted')


def layer(arrangement, seed, deployed=False):
    torch.manual_seed(seed)
    made = HetConv2d(8, 8, 3, p=4, arrangement=arrangement)
    if arrangement == 'permuted':
        made.input_order.copy_(torch.randperm(8))
        made.output_order.copy_(torch.randperm(8))
    plan = Plan(frozen=True, only=['two_branch_nchw'])  # untimed: this is about numbers
    return nn.Sequential(PlannedConv2d(made, plan) if deployed else made)


@pytest.mark.parametrize('deployed', [False, True])
@pytest.mark.parametrize('mine, theirs', itertools.permutations(ARRANGEMENTS, 2))
def test_all_weights_are_taken_or_none(mine, theirs, deployed, capsys):
    """mmengine copies what fits of a layer, whatever the layer says of it."""
    target, source = layer(mine, 0, deployed), layer(theirs, 1, deployed)
    before = {key: value.clone() for key, value in target.state_dict().items()}
    load_state_dict(target, source.state_dict(), strict=False)
    refused = "channel arrangement is not this layer's" in capsys.readouterr().out
    # A permuted layer takes any order, and so does an inference form that has one.
    assert refused == ('blocked' in (mine, theirs) if deployed else mine != 'permuted')
    if refused:
        assert all(torch.equal(v, before[key]) for key, v in target.state_dict().items())
        return
    x = torch.randn(1, 8, 6, 6)
    with torch.no_grad():
        torch.testing.assert_close(target(x), source(x))
