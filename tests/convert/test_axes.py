"""Which channels may be put in another order: never those of an output."""

import copy
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from mmcv.cnn import VGG
from mmdet.models.backbones import SSDVGG
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmdet_hetconv.convert import convert_model, rearrange
from mmdet_hetconv.convert.permutation.axes import FUNCTIONS, find_axes
from mmdet_hetconv.layers import HetConv2d


def call(model, batch):
    return model(batch)


@dataclass
class Features:
    maps: list[Tensor]


# What a network may make of its intermediate map y and its last map z.
RETURNS = dict(
    tuple=lambda y, z: (y, z),
    nested=lambda y, z: [dict(maps=[(z, y)])],
    dataclass=lambda y, z: Features([y, z]),
    element=lambda y, z: ([InstanceData(y=one) for one in y], z),
    in_place=lambda y, z: (y.sub_(0.1), z),
    rectified=lambda y, z: (y.relu(), z),
    view=lambda y, z: (y.flatten(2).transpose(1, 2), z),
    pooled=lambda y, z: (y.mean((2, 3)), z),
    crops=lambda y, z: (torch.cat([y[..., :4], y[..., 4:8]]), z),
)


class Net(nn.Module):
    """Only what it returns tells that others read y."""

    def __init__(self, returns, build=nn.Conv2d):
        super().__init__()
        self.a = build(4, 16, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.b = build(16, 8, 3, padding=1)
        self.c = build(8, 8, 3)
        self.returns = returns

    def forward(self, x):
        y = self.relu(self.a(x))
        return self.returns(y, self.c(self.b(y)))


@pytest.fixture
def batches():
    torch.manual_seed(0)
    return [torch.randn(2, 4, 10, 10) for _ in range(2)]


def het(*args, **kwargs):
    return HetConv2d(*args, p=4, **kwargs)


@pytest.mark.parametrize('returns', RETURNS.values(), ids=RETURNS)
def test_what_is_returned_keeps_its_order(returns, batches):
    """And what is not returned, between b and c, is still permuted."""
    dense = Net(returns)
    maps = Net(lambda y, z: (y, z))
    maps.load_state_dict(dense.state_dict())
    expected = maps(batches[0])
    weight = dense.c.weight.clone()
    assert rearrange(dense, Net(returns, het), batches, call)
    assert not torch.equal(weight, dense.c.weight)
    maps.load_state_dict(dense.state_dict())
    for before, after in zip(expected, maps(batches[0]), strict=True):
        torch.testing.assert_close(after, before)


def test_the_network_is_seen_where_the_caller_returns_nothing(batches):
    dense = Net(RETURNS['tuple'])

    def forward(model, batch):
        model(batch)

    assert [axis.open for axis in find_axes(dense, batches[0], forward)] == [True, False, True]


def test_a_network_whose_outputs_nobody_sees_is_refused(batches):
    dense = Net(RETURNS['tuple'])

    def forward(model, batch):
        model.b(model.a(batch))

    with pytest.raises(ValueError, match='Net: its forward pass returns no'):
        find_axes(dense, batches[0], forward)


def test_regions_in_another_order_do_not_hide_an_output(batches):
    """Rows of an output that are not images, ranked by what is computed."""

    def returns(y, z):
        rows = torch.cat([y[..., :4, :4], y[..., 4:8, 4:8], y[..., 4:8, :4]])
        scores = torch.rand(len(rows))
        return rows[scores.argsort()], z

    dense = Net(returns)
    opens = [axis.open for axis in find_axes(dense, batches[0], call)]
    assert opens == [True, False, True]


class Chain(nn.Module):
    """Two convolutions, a norm and some code between them."""

    def __init__(self, code):
        super().__init__()
        self.a, self.b = (nn.Conv2d(8, 8, 3, padding=1, bias=False) for _ in range(2))
        self.norm, self.c = nn.BatchNorm2d(8), nn.Conv2d(8, 8, 1)
        self.code = code

    def forward(self, x):
        return self.c(self.code(self, x))


CLOSED = dict(
    keywords=lambda net, x: torch.add(input=net.a(x), other=net.b(input=x)),
    product=lambda net, x: net.a(x) * torch.sigmoid(input=net.b(x)),
    gate=lambda net, x: net.a(x) * net.b(x).mean((2, 3), keepdim=True),
    in_place=lambda net, x: net.a(x).add_(net.b(x)).relu_(),
    mask=lambda net, x: net.a(x) + net.b(x) * x.amax(1, keepdim=True),
    shared_norm=lambda net, x: net.norm(net.a(x)) + net.norm(net.b(x)),
    pooled=lambda net, x: F.max_pool2d(input=net.a(x), kernel_size=2) + F.avg_pool2d(net.b(x), 2),
)
OPEN = dict(
    slice=lambda net, x: net.a(x) + F.pad(net.b(x)[:, :4], (0, 0, 0, 0, 0, 4)),
    chunk=lambda net, x: net.a(x) + torch.cat(net.b(x).chunk(2, dim=1)[::-1], 1),
    concatenation=lambda net, x: torch.cat([net.a(x)[:, :4], net.b(x)[:, 4:]], dim=1),
    input=lambda net, x: net.a(x) + x + net.b(x),
    written=lambda net, x: torch.zeros_like(x).copy_(net.a(x) + net.b(x)),
    plain_numbers=lambda net, x: torch.from_numpy((net.a(x) + net.b(x)).numpy()),
    weight=lambda net, x: F.conv2d(x, net.a.weight, padding=1) + net.a(x) + net.b(x),
)


def closed_writers(net):
    axes = find_axes(net.eval(), torch.zeros(2, 8, 6, 6), call)
    return [axis.writers for axis in axes if not axis.open]


@pytest.mark.parametrize('code', CLOSED.values(), ids=CLOSED)
def test_channels_of_one_order(code):
    """Seen on a blank image, too."""
    assert closed_writers(Chain(code)) == [{'a', 'b'}]


@pytest.mark.parametrize('code', OPEN.values(), ids=OPEN)
def test_what_is_not_followed_stays(code):
    torch.manual_seed(0)
    assert closed_writers(Chain(code)) == []


@pytest.mark.parametrize('what', ['hook', 'tied', 'subclass'])
def test_a_layer_in_which_others_have_a_say(what):
    net = Chain(CLOSED['keywords'])
    assert closed_writers(net) == [{'a', 'b'}]
    if what == 'hook':
        net.b.register_forward_hook(lambda module, args, y: y + torch.arange(8.0)[:, None, None])
    elif what == 'tied':
        net.b.weight = net.a.weight
    else:
        net.b.__class__ = type('Own', (nn.Conv2d,), {})
    assert closed_writers(net) == []


def test_the_fewest_axes_are_opened(monkeypatch):
    """Of those that only the shuffle shows to be wrong; a rule that is wrong is caught."""
    monkeypatch.setattr('mmdet_hetconv.convert.permutation.axes.FUNCTIONS', {*FUNCTIONS, 'flip'})
    net = nn.ModuleDict({name: nn.Conv2d(8, 8, 1) for name in 'abcdef'})

    def forward(net, x):
        y = net['b'](net['a'](x))
        z = net['d'](net['c'](y).flip(1))
        return net['f'](net['e'](z))

    axes = find_axes(net.eval(), torch.zeros(1, 8, 4, 4), forward)
    assert [axis.open for axis in axes] == [False, False, True, False, False, True]


def test_a_path_that_is_blank_in_the_first_batch():
    class Blank(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(8, 16, 3, bias=False), nn.Conv2d(16, 8, 3, bias=False)
            self.c = nn.Conv2d(8, 8, 3, bias=False)

        def forward(self, x):
            y = torch.relu(self.a(x))
            return self.b(y) + self.c(y[:, :8])

    torch.manual_seed(0)
    dense = Blank().eval()
    het = copy.deepcopy(dense)
    convert_model(het, p=4)
    x = torch.randn(2, 8, 8, 8)
    expected = dense(x)
    rearrange(dense, het, [torch.zeros(2, 8, 8, 8), x], call)
    torch.testing.assert_close(dense(x), expected)


def test_two_channels_are_shuffled_too():
    """A random order of two is the old one half of the time."""
    for seed in range(8):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU(), nn.Conv2d(2, 2, 1), nn.Softplus())

        def forward(model, batch):
            y = model[0](batch)
            return y * 2, model[2](y)

        axes = find_axes(net, torch.randn(2, 3, 4, 4), forward)
        assert [axis.open for axis in axes] == [True, True], seed


@pytest.mark.parametrize(
    'make, writers',
    [
        (lambda: VGG(11, out_indices=(0, 2, 4)), [0, 8]),
        (lambda: VGG(11, out_indices=(1, 3)), [3, 13]),
        (lambda: SSDVGG(11, out_feature_indices=(9, 17)), [8, 16]),
    ],
    ids=['vgg', 'vgg-inner', 'ssd_vgg'],
)
def test_backbones_with_several_outputs(make, writers):
    """Features are taken from inside their nn.Sequential, after ReLUs."""
    torch.manual_seed(0)
    backbone = make()
    backbone.eval()
    axes = find_axes(backbone, torch.randn(2, 3, 32, 32), call)
    names = [name for axis in axes if axis.open for name in axis.writers]
    for number in writers:
        assert f'features.{number}' in names
    assert sum(not axis.open for axis in axes) > 2
