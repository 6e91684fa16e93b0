"""A p for each layer under a budget."""

import itertools
import random

import pytest
import torch
from mmengine.registry import MODELS
from torch import nn

from mmdet_hetconv.convert import calibrate, choose_p, convert_model, converted_model, layer_errors
from mmdet_hetconv.layers import HetConv2d

P = (1, 2, 4, 8)


@pytest.mark.parametrize('seed', range(5))
def test_no_other_choice_is_better(seed):
    draw = random.Random(seed)
    losses = {name: {p: draw.random() * p for p in P} for name in 'abcde'}
    costs = {name: {p: draw.randint(1, 9) / p for p in P} for name in 'abcde'}
    budget = 0.6 * sum(by_p[1] for by_p in costs.values())
    chosen = choose_p(losses, costs, budget)
    assert [*chosen] == [*losses]
    assert sum(costs[name][p] for name, p in chosen.items()) <= budget

    def loss(choice):
        return sum(losses[name][p] for name, p in choice.items())

    ways = (dict(zip(losses, ps)) for ps in itertools.product(P, repeat=5))
    best = min(
        loss(way) for way in ways if sum(costs[name][p] for name, p in way.items()) <= budget
    )
    # Costs are rounded up to a ten thousandth of what can be spent.
    assert loss(chosen) == pytest.approx(best, rel=1e-2)


def test_budgets_at_the_ends():
    losses = {'a': {1: 0.0, 4: 1.0}, 'b': {1: 0.0, 2: 0.5}}
    costs = {'a': {1: 9.0, 4: 3.0}, 'b': {1: 9.0, 2: 5.0}}
    assert choose_p(losses, costs, 8.0) == {'a': 4, 'b': 2}
    assert choose_p(losses, costs, 18.0) == {'a': 1, 'b': 1}
    assert choose_p(losses, costs, 1e9) == {'a': 1, 'b': 1}
    assert choose_p(losses, costs, 14.0) == {'a': 1, 'b': 2}
    with pytest.raises(ValueError, match='7.99 is out of reach, the least is 8'):
        choose_p(losses, costs, 7.99)


@pytest.mark.parametrize('seed', range(3))
def test_what_fits_exactly_is_taken(seed):
    """Rounded up, the costs of many layers are more than such a budget."""
    draw = random.Random(seed)
    dense = [100 + 50 * draw.random() for _ in range(53)]
    costs = {str(i): {1: cost, 2: 0.6 * cost, 4: cost / 3} for i, cost in enumerate(dense)}
    losses = dict.fromkeys(costs, {1: 0.0, 2: 0.1, 4: 0.3})
    for factor in (1, 1.002):
        assert set(choose_p(losses, costs, sum(dense) * factor).values()) == {1}


def network(torch_seed=0):
    torch.manual_seed(torch_seed)
    return nn.Sequential(
        nn.Conv2d(8, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 8, 3, padding=1),
    ).eval()


def run(model, batch):
    return model(batch)


@pytest.mark.parametrize('mean', [300, 10_000])
def test_errors_do_not_depend_on_the_mean_of_the_inputs(mean):
    """Nor on its digits: products of the values themselves lost those of the deviations."""
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Conv2d(8, 8, 3))
    noise = [torch.randn(4, 8, 20, 20).double() for _ in range(2)]
    want, got = (
        layer_errors(dense.to(x[0].dtype), x, run, {'0': (2, 4)})['0']
        for x in (noise, [(values + mean).float() for values in noise])
    )
    assert got == pytest.approx(want, rel=5e-3)


def errors_of(dense, batches, ps=P):
    return layer_errors(dense, batches, run, dict.fromkeys(('0', '2', '4'), ps))


def test_errors_grow_with_p_and_the_network_stays():
    dense = network()
    before = {key: value.clone() for key, value in dense.state_dict().items()}
    errors = errors_of(dense, [torch.randn(4, 8, 12, 12) for _ in range(3)])
    assert [*errors] == ['0', '2', '4']
    for by_p in errors.values():
        assert by_p[1] == 0 < by_p[2] < by_p[4] < by_p[8] < 1
    for key, value in dense.state_dict().items():
        assert torch.equal(value, before[key])
    assert not any(module._forward_hooks for module in dense.modules())


@pytest.mark.parametrize('p', [2, 4])
def test_a_layer_that_is_heterogeneous_already_loses_nothing(p):
    dense = network()
    with torch.no_grad():
        dense[2].weight.copy_(HetConv2d(16, 16, 3, padding=1, p=p).dense_weight())
    errors = errors_of(dense, [torch.randn(4, 8, 12, 12) for _ in range(3)])
    assert errors['2'][p] < 1e-4 * errors['0'][p]
    assert errors['2'][2 * p] > 1e3 * errors['2'][p]


def test_the_error_is_the_one_that_calibration_finds():
    dense = network()
    batches = [torch.randn(16, 8, 12, 12) for _ in range(20)]
    het = network()
    convert_model(het, p=4, include='0')
    fits = calibrate(dense, het, batches)
    assert errors_of(dense, batches)['0'][4] == pytest.approx(fits['0'].after ** 2, rel=0.1)


def test_what_cannot_be_measured():
    dense = network()
    with pytest.raises(ValueError, match='^0: its inputs .* are not finite'):
        errors_of(dense, [torch.full((1, 8, 12, 12), float('nan'))])
    with pytest.raises(ValueError, match='no calibration image reaches it'):
        errors_of(dense, [torch.zeros(0, 8, 12, 12)])


def test_a_config_with_a_p_for_each_layer():
    model = dict(type='Small')

    @MODELS.register_module('Small')
    def small():
        return network()

    try:
        built = MODELS.build(dict(type='ConvertedModel', model=model, layers={'0': 2, '2': 8}))
        plain = converted_model(model, {'0': 1})
    finally:
        MODELS._module_dict.pop('Small')
    assert [getattr(built[i], 'p', None) for i in (0, 2, 4)] == [2, 8, None]
    assert type(plain[0]) is nn.Conv2d
