import threading

import pytest
import torch
from torch import nn

from mmdet_hetconv.convert.calibration.side_by_side import run_one_by_one, run_side_by_side


def chain():
    torch.manual_seed(0)
    return nn.ModuleDict({name: nn.Linear(2, 2) for name in 'abc'})


def works_of(net, inputs, log=None):
    def work(x, number):
        for name, module in net.items():
            x = module(x)
            if log is not None:
                log.append((number, name))

    return [lambda x=x, i=i: work(x, i) for i, x in enumerate(inputs)]


def test_every_pass_waits_in_front_of_every_module():
    """What a visit writes into a module, all passes see behind it."""
    net, log = chain(), []
    inputs = [torch.full((1, 2), float(i)) for i in range(3)]
    seen = {}

    def visit(name, values):
        seen[name] = torch.cat([values[i] for i in range(3)])
        with torch.no_grad():
            net[name].weight.copy_(2 * torch.eye(2))
            net[name].bias.zero_()

    modules = {name: net[name] for name in 'abc'}
    run_side_by_side(works_of(net, inputs, log), modules, visit)
    first = torch.cat(inputs)
    assert torch.equal(seen['a'], first)
    assert torch.equal(seen['b'], 2 * first)
    assert torch.equal(seen['c'], 4 * first)
    # In turns, and nothing runs behind the last module.
    assert log == [(i, name) for name in 'ab' for i in range(3)]
    assert not any(module._forward_pre_hooks for module in net.values())


def test_a_pass_may_miss_a_module():
    """As a detector without proposals misses its head."""
    net, met = chain(), {}
    x = torch.zeros(1, 2)
    works = [lambda: net['c'](net['b'](net['a'](x))), lambda: net['c'](net['a'](x))]
    run_side_by_side(
        works,
        {name: net[name] for name in 'abc'},
        lambda name, values: met.update({name: sorted(values)}),
    )
    assert met == {'a': [0, 1], 'b': [0], 'c': [0, 1]}


@pytest.mark.parametrize('where', ['pass', 'visit'])
def test_errors_end_all_threads(where):
    net = chain()
    before = threading.active_count()

    def fails(*_):
        raise KeyError('here')

    if where == 'pass':
        net['b'].register_forward_hook(fails)
    visit = fails if where == 'visit' else lambda name, values: None
    inputs = [torch.zeros(1, 2)] * 3
    with pytest.raises(KeyError, match='here'):
        run_side_by_side(works_of(net, inputs), dict(net.items()), visit)
    assert threading.active_count() == before
    assert not any(module._forward_pre_hooks for module in net.values())


def test_nothing_keeps_a_graph():
    net = chain()
    grads = []
    run_side_by_side(
        works_of(net, [torch.zeros(1, 2)]),
        {'b': net['b']},
        lambda name, values: grads.append(values[0].requires_grad),
    )
    assert grads == [False]


def test_one_by_one_collects_all_calls_and_stops_there():
    net, log = chain(), []

    def work():
        for scale in (1.0, 2.0, 3.0):
            net['a'](torch.full((1, 2), scale))
        log.append('end')

    calls = []
    run_one_by_one(
        [work, work],
        net['a'],
        3,
        lambda number, call, x: calls.append((number, call, x[0, 0].item())),
    )
    assert calls == [(n, c, c + 1.0) for n in range(2) for c in range(3)]
    assert log == []
