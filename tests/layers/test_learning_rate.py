"""A HetConv layer learns at the learning rate over its density."""

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from torch import nn

from mmdet_hetconv.layers import GroupPointwiseConv2d, HetConv2d

RATE = 0.0625


def model():
    return nn.Sequential(
        nn.Conv2d(8, 8, 3),
        HetConv2d(8, 8, 3, p=4),
        HetConv2d(8, 4, 5, p=2, bias=False),
        HetConv2d(4, 4, 3, p=1),
        nn.BatchNorm2d(4),
        GroupPointwiseConv2d(4, 4, 3, conv_groups=2),
        nn.Sequential(HetConv2d(4, 4, 3, p=2)),
    )


def rates(net, optimizer=None, **options):
    """The learning rate of every parameter that is trained."""
    cfg = dict(
        type='OptimWrapper',
        optimizer=optimizer or dict(type='SGD', lr=RATE, weight_decay=0.5),
        constructor='HetConvOptimWrapperConstructor',
        **options,
    )
    names = {id(param): name for name, param in net.named_parameters()}
    groups = build_optim_wrapper(net, cfg).optimizer.param_groups
    return {names[id(param)]: group['lr'] for group in groups for param in group['params']}


def test_the_weights_of_hetconv_learn_at_the_rate_over_density():
    net = model()
    found = rates(net)
    assert set(found) == {name for name, _ in net.named_parameters()}
    factors = {name: rate / RATE for name, rate in found.items() if rate != RATE}
    five = 25 / (25 / 2 + 1 / 2)
    two = 9 / (9 / 2 + 1 / 2)
    assert factors == pytest.approx(
        {
            '1.grouped.weight': 3,
            '1.pointwise.weight': 3,
            '2.grouped.weight': five,
            '2.pointwise.weight': five,
            '6.0.grouped.weight': two,
            '6.0.pointwise.weight': two,
        }
    )


def test_factors_of_the_config_multiply():
    net = model()
    keys = {'1.grouped': dict(lr_mult=0.5), '0.': dict(lr_mult=0.25)}
    net[2].grouped.weight.requires_grad = False
    options = dict(custom_keys=keys, bias_lr_mult=2)
    found = rates(net, paramwise_cfg=options)
    assert found['1.grouped.weight'] == pytest.approx(1.5 * RATE)
    assert found['1.pointwise.weight'] == pytest.approx(3 * RATE)
    assert found['1.grouped.bias'] == RATE * 0.5
    assert found['0.weight'] == RATE * 0.25
    assert found['3.grouped.bias'] == RATE * 2
    assert '2.grouped.weight' not in found


def test_a_step_changes_the_output_as_much_as_the_dense_one():
    """Under Adam, on equal inputs: what the factor is for."""
    torch.manual_seed(0)
    x = torch.rand(64, 32, 7, 7)
    changes = []
    for p in (1, 2, 4, 8, 16):
        layer = HetConv2d(32, 32, 3, p=p)
        optimizer = build_optim_wrapper(
            layer,
            dict(
                optimizer=dict(type='Adam', lr=1e-3), constructor='HetConvOptimWrapperConstructor'
            ),
        ).optimizer
        before = layer(x)
        before.sum().backward()
        optimizer.step()
        changes.append((layer(x) - before).mean().item())
    assert changes == pytest.approx([changes[0]] * 5, rel=0.02)


def test_an_optimizer_without_a_rate_is_refused():
    with pytest.raises(ValueError, match='the optimizer SGD is given no lr'):
        rates(model(), optimizer=dict(type='SGD'))
