"""Looking at modules while they run."""

import pytest
import torch
from torch import nn

from mmdet_hetconv.trace import hooked


def test_each_call_is_seen_by_position_and_by_keyword():
    conv, seen = nn.Conv2d(2, 2, 1), []
    x = torch.randn(1, 2, 3, 3)
    with hooked({'c': conv}, lambda *a: seen.append(a), lambda *a: seen.append(a)):
        y = conv(x)
        z = conv(input=x)
    assert [len(call) for call in seen] == [2, 3, 2, 3]
    assert all(call[0] == 'c' and call[1] is x for call in seen)
    assert seen[1][2] is y and seen[3][2] is z
    conv(x)
    assert len(seen) == 4


def test_what_a_module_takes_and_puts_out_itself():
    """Between the hooks that others registered before."""
    act, seen = nn.ReLU(), []
    act.register_forward_pre_hook(lambda module, args: (args[0] + 1,))
    act.register_forward_hook(lambda module, args, y: 10 * y)
    with hooked({'': act}, after=lambda name, x, y: seen.append((x.item(), y.item()))):
        assert act(torch.tensor(1.0)) == 20
    assert seen == [(2.0, 2.0)]


def test_hooks_are_gone_after_an_error():
    net = nn.Sequential(nn.ReLU(), nn.Tanh())
    with pytest.raises(KeyError), hooked(dict(net.named_modules()), print, print):
        raise KeyError
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


def test_scripted_modules_are_left_out():
    net = nn.Sequential(torch.jit.script(nn.ReLU()), nn.Tanh())
    seen = []
    with hooked(dict(net.named_modules()), after=lambda name, x, y: seen.append(name)):
        net(torch.ones(1))
    assert seen == ['1', '']
