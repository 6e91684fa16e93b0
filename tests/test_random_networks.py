"""Networks put together at random go through everything that changes a network.

A hundred by default, of which some go through each; HETCONV_NETWORKS=5000 takes as many
through all, HETCONV_FIRST another start.
"""

import copy
import os
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from mmdet_hetconv.convert import calibrate, convert_model, rearrange
from mmdet_hetconv.convert.calibration import calibrate as calibration
from mmdet_hetconv.deploy import fold_bn, switch_to_deploy
from mmdet_hetconv.kernels import Plan
from mmdet_hetconv.trace import difference

from .random_networks import images, random_network

FIRST = int(os.environ.get('HETCONV_FIRST', 0))
MANY = os.environ.get('HETCONV_NETWORKS')
PARTS = dict(
    fold=(0, 60),
    calibrate=(60, 80),
    rearrange=(80, 100),
    fp32=(0, 12),
    bf16=(12, 16),
    int8=(16, 19),
)
BOUNDS = dict(fp32=1e-4, bf16=0.2, int8=0.5)


def outputs(net, seed):
    with torch.no_grad():
        return net(images(seed))


def batches(seed):
    return [images(seed + i, 4) for i in range(3)]


def call(net, batch):
    return net(batch)


def folded(net, seed):
    fold_bn(net)
    return net, 1e-4


def deployed(net, seed, precision):
    plan = Plan(frozen=True, only=['two_branch_nchw', 'dense_nchw', 'fused_int8'])
    calibration = batches(seed) if precision == 'int8' else ()
    net = switch_to_deploy(net, plan, precision=precision, calibration=calibration)
    return net, BOUNDS[precision]


def converted(net):
    """A copy, and the names of its layers that are heterogeneous."""
    het = copy.deepcopy(net)
    try:
        return het, [record.name for record in convert_model(het, p=2).converted]
    except ValueError:  # it has no layer that can be
        return het, []


def rearranged(net, seed):
    net = copy.deepcopy(net)
    het, names = converted(net)
    if names:
        rearrange(net, het, batches(seed)[:2], call)
    return net, 1e-4


def calibrated(net, seed):
    """Weights that a HetConv layer has, made longer where that is free, are found."""
    het, names = converted(net)
    with torch.no_grad():
        for name in names:
            weight = het.get_submodule(name).dense_weight()
            net.get_submodule(name).weight.copy_(weight)
    if names:
        calibrate(net, het, batches(seed))
    return het, 1e-2


WAYS = dict(
    fold=folded,
    fp32=partial(deployed, precision='fp32'),
    bf16=partial(deployed, precision='bf16'),
    int8=partial(deployed, precision='int8'),
    rearrange=rearranged,
    calibrate=calibrated,
)


def errors(way, seeds):
    """By seed, how far a network is from what it was, where that is too far."""
    wrong = {}
    for seed in seeds:
        net = random_network(seed)
        changed, bound = WAYS[way](net if way == 'calibrate' else copy.deepcopy(net), seed)
        error = difference(outputs(changed, seed), outputs(net, seed))
        if error > bound:
            wrong[seed] = error
    return wrong


@pytest.fixture
def longer_weights(monkeypatch):
    """Where lengths are free, least squares is as if it had found other ones."""

    def rescale(conv, *rest):
        keep(SimpleNamespace(weight=3 * conv.weight), *rest)

    keep = calibration.rescale
    monkeypatch.setattr(calibration, 'rescale', rescale)


@pytest.mark.usefixtures('bfloat16_anywhere', 'longer_weights')
@pytest.mark.parametrize('way', WAYS)
def test_the_function_stays(way):
    first, last = (0, int(MANY)) if MANY else PARTS[way]
    assert not errors(way, range(FIRST + first, FIRST + last))
