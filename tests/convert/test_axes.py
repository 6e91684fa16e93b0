"""Which channels may be put in another order: never those of an output."""

from dataclasses import dataclass

import pytest
import torch
from mmcv.cnn import VGG
from mmdet.models.backbones import SSDVGG
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmdet_hetconv.convert import rearrange
from mmdet_hetconv.convert.axes import find_axes
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
