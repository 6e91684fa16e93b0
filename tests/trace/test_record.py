"""What the recorder sees of a network."""

import contextlib
from collections import OrderedDict, namedtuple
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from mmdet_hetconv.trace import find_tensors, map_tensors, record

Two = namedtuple('Two', 'low high')


@dataclass(frozen=True)
class Data:
    low: torch.Tensor
    note: str = 'kept'


def test_tensors_in_whatever_holds_them():
    a, b = torch.zeros(1), torch.ones(2)
    value = dict(one=[a, 3], two=Two(b, None), three=OrderedDict(x=Data(a)), four=(b,))
    assert [id(x) for x in find_tensors(value)] == [id(a), id(b)]
    changed = map_tensors(lambda x: x + 1, value)
    assert changed['one'][0] == 1 and changed['one'][1] == 3
    assert type(changed['two']) is Two and changed['two'].low[0] == 2
    assert type(changed['three']) is OrderedDict and changed['three']['x'].low == 1
    assert changed['three']['x'].note == 'kept' and a == 0
    assert map_tensors(lambda x: x, value) is value


class Net(nn.Module):
    def __init__(self, code):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.act = nn.ReLU(inplace=True)
        self.code = code

    def forward(self, x):
        return self.code(self, x)


@torch.jit.script
def doubled(x):
    return x * 2.0


def readers_of_conv(code):
    net = Net(code).eval()
    seen = record(net, lambda: net(torch.randn(1, 4, 5, 5)))
    call = seen.calls_of(net.conv)[-1]
    (value,) = call.outputs
    return net, seen, [reader.target for reader in seen.readers(value, call.number)]


def test_who_reads_an_output():
    def chain(net, x):
        return net.act(net.norm(net.conv(x)))

    net, seen, readers = readers_of_conv(chain)
    assert readers == [net.norm]
    (norm,) = seen.calls_of(net.norm)
    assert seen.reader(norm).target is net.act
    (act,) = seen.calls_of(net.act)
    # What an in-place ReLU leaves is another value of the same tensor.
    assert act.inputs[0].tensor == act.outputs[0].tensor
    assert act.inputs[0].version < act.outputs[0].version
    assert [call.target for call in seen.readers(act.outputs[0])] == [None]


def test_views_changes_in_place_and_returns_count_as_readers():
    def sliced(net, x):
        y = net.conv(x)
        return net.norm(y) + y[:, :, 1:].sum()

    names = ['__getitem__', 'sum']
    net, _, readers = readers_of_conv(sliced)
    assert readers[0] is net.norm and [r.__name__ for r in readers[1:]] == names

    def view_outlives(net, x):
        part = net.conv(x)[:, :2]
        return part.exp()

    assert len(readers_of_conv(view_outlives)[2]) == 2

    def changed(net, x):
        y = net.conv(x)
        y += 1
        return net.norm(y)

    net, _, readers = readers_of_conv(changed)
    assert net.norm not in readers and len(readers) == 1

    def returned(net, x):
        y = net.conv(x)
        return Data(y), net.norm(y)

    net, _, readers = readers_of_conv(returned)
    assert readers == [net.norm, None]


def test_scripted_functions_are_readers():
    net, seen, _ = readers_of_conv(lambda net, x: doubled(net.conv(x)))
    (call,) = seen.calls_of(net.conv)
    (reader,) = seen.readers(call.outputs[0], call.number)
    assert not reader.seen


def test_parameters_that_others_take():
    net, seen, _ = readers_of_conv(lambda net, x: net.conv(x.to(net.conv.weight.dtype)))
    assert seen.touched == {net.conv}
    net, seen, _ = readers_of_conv(lambda net, x: net.norm(net.conv(x)))
    assert not seen.touched


def test_scopes_and_copies():
    inner = Net(lambda net, x: F.relu(net.conv(x)))
    net = nn.Sequential(inner, nn.Identity()).eval()
    x = torch.randn(1, 4, 5, 5)
    seen = record(net, lambda: net(x), lambda module: module is inner)
    (scope,) = seen.scopes_of(inner)
    assert [getattr(step.target, '__name__', step.target) for step in scope.steps] == [
        inner.conv,
        'relu',
    ]
    torch.testing.assert_close(scope.args[0], x)
    assert scope.args[0] is not x
    torch.testing.assert_close(scope.outputs, net(x))


def test_nothing_is_left_behind():
    net = Net(lambda net, x: net.norm(net.conv(x))).train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    net.eval()
    record(net, lambda: net(torch.randn(2, 4, 5, 5)))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_an_error_that_the_network_catches():
    def tries(net, x):
        with contextlib.suppress(RuntimeError):
            net.conv(x[:, :1])
        return net.norm(net.conv(x))

    net, seen, _ = readers_of_conv(tries)
    assert seen.reader(seen.calls_of(net.conv)[-1]).target is net.norm
