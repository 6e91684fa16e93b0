"""A norm gives a convolution's filters their length and mean only where it alone reads them."""

import copy

import pytest
import torch
from torch import nn

from mmdet_hetconv.convert import calibrate, convert_model
from mmdet_hetconv.convert.calibration.dense_trace import trace_dense
from mmdet_hetconv.trace import difference


class NormAndActivation(nn.BatchNorm2d):
    """As timm's BatchNormAct2d."""

    def forward(self, x):
        return super().forward(x).relu()


class Net(nn.Module):
    def __init__(self, code):
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1)
        self.bn, self.other = nn.BatchNorm2d(8), nn.BatchNorm2d(8)
        self.act = nn.ReLU(inplace=True)
        self.code = code

    def forward(self, x):
        return self.code(self, x, self.conv(x))


def through(function, values):
    return function(input=values)


def changed_afterwards(net, x, y):
    z = net.bn(y)
    return z + y.relu_()


def summed_in_place(net, x, y):
    y += x
    return net.bn(y)


def in_a_list(net, x, y):
    maps = [y]
    return net.bn(maps[0])


ALONE = dict(
    directly=(lambda net, x, y: net.bn(y).relu(), {'bn'}),
    keyword=(lambda net, x, y: through(net.bn, y), {'bn'}),
    listed=(in_a_list, {'bn'}),
    two_norms=(lambda net, x, y: net.bn(y) + net.other(y), {'bn', 'other'}),
)
NOT_ALONE = dict(
    in_place_module=lambda net, x, y: net.bn(net.act(y)),
    in_place_function=lambda net, x, y: net.bn(torch.relu_(y)),
    sum_in_place=summed_in_place,
    sum=lambda net, x, y: net.bn(x + y),
    function=lambda net, x, y: net.bn(torch.nn.functional.silu(input=y)),
    skip=lambda net, x, y: net.bn(y).relu() + y,
    changed_afterwards=changed_afterwards,
    slice=lambda net, x, y: net.bn(y) + y[:, :1],
    view=lambda net, x, y: net.bn(y.flatten(2).view(y.shape)),
    concatenation=lambda net, x, y: net.bn(torch.cat([y[:, :4], y[:, 4:]], 1)),
    returned=lambda net, x, y: (net.bn(y), [y]),
    norm_twice=lambda net, x, y: net.bn(y) + net.bn(x),
    conv_twice=lambda net, x, y: net.bn(y) + net.conv(x),
    nothing=lambda net, x, y: net.bn(x),
)


def call(model, batch):
    return model(batch)


def norms_behind(net):
    het = copy.deepcopy(net)
    convert_model(het, p=2)
    batches = [torch.randn(2, 8, 6, 6)]
    pairs = {'conv': het.conv}
    trace = trace_dense(net.eval(), pairs, batches, call, lambda layer: 10, lambda: None)
    return set(trace.norms_behind('conv'))


@pytest.mark.parametrize('code, norms', ALONE.values(), ids=ALONE)
def test_a_norm_that_alone_reads_it(code, norms):
    assert norms_behind(Net(code)) == norms


@pytest.mark.parametrize('code', NOT_ALONE.values(), ids=NOT_ALONE)
def test_a_convolution_that_others_read_too(code):
    assert norms_behind(Net(code)) == set()


@pytest.mark.parametrize('name', ['conv', 'bn'])
def test_a_hook_may_read_it_too(name):
    net = Net(ALONE['directly'][0])
    handle = net.get_submodule(name).register_forward_hook(lambda module, args, y: y + 1)
    assert norms_behind(net) == set()
    handle.remove()
    assert norms_behind(net) == {'bn'}


def test_a_norm_with_code_of_its_own():
    net = Net(ALONE['directly'][0])
    net.bn = NormAndActivation(8)
    assert norms_behind(net) == set()


def test_hooks_of_a_layer_are_not_fitted_twice():
    """The dense layer's hook doubles what it puts out, and so does the converted one's."""
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Conv2d(8, 8, 3, bias=False), nn.ReLU())
    dense[0].register_forward_hook(lambda module, args, y: 2 * y)
    het = copy.deepcopy(dense).eval()
    convert_model(het, p=2)
    with torch.no_grad():
        dense[0].weight.copy_(het[0].dense_weight())
    calibrate(dense, het, [torch.randn(4, 8, 12, 12) for _ in range(3)])
    x = torch.randn(2, 8, 12, 12)
    assert difference(het(x), dense(x)) < 1e-4


def test_layers_and_norms_that_are_called_by_keyword():
    class Keywords(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3)
            self.bn = nn.BatchNorm2d(8)

        def forward(self, x):
            return self.b(self.bn(input=self.a(x)))

    torch.manual_seed(0)
    dense = Keywords().eval()
    het = copy.deepcopy(dense)
    convert_model(het, p=2)
    for memory in (2**30, 0):
        fits = calibrate(dense, het, [torch.randn(2, 8, 12, 12) for _ in range(3)], memory=memory)
        assert list(fits) == ['a', 'b']
