import copy

import pytest
import torch
from torch import nn

from mmdet_hetconv.convert import calibrate, rearrange
from mmdet_hetconv.convert.permutation.axes import find_axes
from mmdet_hetconv.layers import HetConv2d


def call(model, batch):
    return model(batch)


def conv(het, *args, **kwargs):
    if het:
        return HetConv2d(*args, p=4, **het, **kwargs)
    return nn.Conv2d(*args, **kwargs)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 with norms, and a sum that is no module."""

    def __init__(self, het=None):
        super().__init__()
        self.conv1 = nn.Conv2d(16, 8, 1)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = conv(het, 8, 8, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(8)
        self.conv3 = nn.Conv2d(8, 16, 1)
        self.bn3 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        return self.relu(self.bn3(self.conv3(y)) + x)


class Net(nn.Module):
    def __init__(self, het=None):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3)
        self.block = Bottleneck(het)
        self.last = conv(het, 16, 8, 3)
        self.linear = nn.Linear(8, 5)

    def forward(self, x):
        y = self.last(self.block(torch.relu(self.stem(x))))
        return self.linear(y.mean((2, 3)))


def shake(net):
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return net.eval()


@pytest.fixture
def dense():
    torch.manual_seed(0)
    return shake(Net())


def images(count=3):
    torch.manual_seed(1)
    coarse = torch.randn(count, 4, 3, 6, 6)
    return [nn.functional.interpolate(c, (12, 12), mode='bilinear') for c in coarse]


def test_axes_of_a_bottleneck(dense):
    """Two axes within, and the residual stream, which the stem begins."""
    before = copy.deepcopy(dense.state_dict())
    axes = find_axes(dense, images()[0], call)
    free = [axis for axis in axes if not axis.open]
    assert [(a.writers, a.norms, a.readers) for a in free] == [
        ({'block.conv1'}, {'block.bn1'}, {'block.conv2'}),
        ({'block.conv2'}, {'block.bn2'}, {'block.conv3'}),
        ({'stem', 'block.conv3'}, {'block.bn3'}, {'block.conv1', 'last'}),
    ]
    for name, value in dense.state_dict().items():
        assert torch.equal(before[name], value), name


class Skip(nn.Module):
    """Two convolutions beside each other, joined in some way, and one behind."""

    def __init__(self, join):
        super().__init__()
        self.a = nn.Conv2d(3, 8, 3, padding=1)
        self.b = nn.Conv2d(3, 8, 3, padding=1)
        self.c = nn.Conv2d(8, 4, 3)
        self.join = join

    def forward(self, x):
        return self.c(self.join(self.a(x), self.b(x)))


@pytest.mark.parametrize(
    'join',
    [
        lambda a, b: a + b,
        lambda a, b: a.add_(torch.relu(b)),
        lambda a, b: torch.nn.functional.relu(sum([a, b])),
    ],
)
def test_operands_of_a_sum_have_one_order(join):
    torch.manual_seed(0)
    axes = find_axes(Skip(join), torch.rand(2, 3, 8, 8), call)
    assert [axis.writers for axis in axes if not axis.open] == [{'a', 'b'}]


@pytest.mark.parametrize(
    'join',
    [
        lambda a, b: a + b * torch.arange(8.0)[:, None, None],
        lambda a, b: a + b.roll(1, dims=1),
        lambda a, b: torch.cat([a[:, :4], b[:, 4:]], dim=1),
        lambda a, b: a + a.flip(1) + b,
        lambda a, b: a.add_(b.cumsum(1)),
    ],
)
def test_what_mixes_channels_outside_of_modules_is_noticed(join):
    torch.manual_seed(0)
    axes = find_axes(Skip(join), torch.rand(2, 3, 8, 8), call)
    assert all(axis.open for axis in axes)


def test_a_layer_within_a_stream_leaves_it_as_it_is():
    class Within(Skip):
        def forward(self, x):
            x = self.a(x)
            return self.c(self.d(x) + x)

    torch.manual_seed(0)
    net = Within(None)
    net.d = nn.Conv2d(8, 8, 3, padding=1)
    assert all(axis.open for axis in find_axes(net, torch.rand(2, 3, 8, 8), call))


def test_levels_that_a_head_reads_have_one_order():
    class Levels(Skip):
        def forward(self, x):
            return self.c(torch.relu(self.a(x))), self.c(self.b(x)[..., ::2])

    torch.manual_seed(0)
    axes = find_axes(Levels(None), torch.rand(2, 3, 8, 8), call)
    assert [axis.open for axis in axes] == [True] * len(axes)  # a slice is not followed

    Levels.forward = lambda self, x: (self.c(torch.relu(self.a(x))), self.c(self.b(x)))
    axes = find_axes(Levels(None), torch.rand(2, 3, 8, 8), call)
    assert [(a.writers, a.readers) for a in axes if not a.open] == [({'a', 'b'}, {'c'})]


def test_rearranging_keeps_the_function_and_saves_energy(dense):
    het = Net(dict(arrangement='blocked'))
    x = images()[1]
    expected = dense(x)
    weight = dense.block.conv2.weight.clone()
    kept = rearrange(dense, het, images(), call)
    torch.testing.assert_close(dense(x), expected)
    assert not torch.equal(weight, dense.block.conv2.weight)
    assert list(kept) == ['block.conv2', 'last']
    assert all(0 < before < after < 1 for before, after in kept.values())


def test_planted_blocks_are_found(dense):
    """A block structure that was shuffled away comes back in full."""
    torch.manual_seed(3)
    layer = HetConv2d(8, 8, 3, padding=1, bias=False, p=4)
    rows, columns = torch.randperm(8), torch.randperm(8)
    with torch.no_grad():
        dense.block.conv2.weight.copy_(layer.dense_weight()[rows][:, columns])
    het = Net(dict(arrangement='blocked'))
    before, after = rearrange(dense, het, images(), call)['block.conv2']
    assert before < 0.9
    assert after == pytest.approx(1)


def test_layers_with_another_p_on_one_axis_stay():
    """One order of the channels cannot serve blocks of two sizes."""

    def chain(p1=None, p2=None):
        def layer(p, *args):
            return HetConv2d(*args, p=p) if p else nn.Conv2d(*args)

        return nn.Sequential(layer(p1, 8, 16, 3), nn.ReLU(), layer(p2, 16, 8, 3))

    torch.manual_seed(0)
    batches = [torch.rand(2, 8, 12, 12)]
    assert rearrange(chain(), chain(4, 8), batches, call) == {}
    assert set(rearrange(chain(), chain(4, 4), batches, call)) == {'0', '2'}


def test_shifted_layers_are_left(dense):
    before = copy.deepcopy(dense.state_dict())
    het = Net(dict(arrangement='shifted'))
    assert rearrange(dense, het, images(), call) == {}
    for name, value in dense.state_dict().items():
        assert torch.equal(before[name], value), name


def residual(**kwargs) -> nn.Module:
    """Two convolutions around a sum: no axis of theirs can be folded."""

    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 1)
            layer = HetConv2d if kwargs else nn.Conv2d
            self.conv = layer(8, 8, 3, padding=1, **kwargs)

        def forward(self, x):
            x = self.stem(x).relu()
            return x + self.conv(x)

    return Residual()


def test_a_permuted_layer_stores_what_cannot_be_folded():
    torch.manual_seed(0)
    batches = [torch.rand(2, 3, 12, 12) for _ in range(6)]
    dense, het = residual(), residual(p=4, arrangement='permuted')
    planted = HetConv2d(8, 8, 3, padding=1, p=4)
    rows, columns = torch.randperm(8), torch.randperm(8)
    with torch.no_grad():
        dense.conv.weight.copy_(planted.dense_weight()[rows][:, columns])
    before = copy.deepcopy(dense.state_dict())
    assert rearrange(dense, residual(p=4), batches, call) == {}
    share, permuted = rearrange(dense, het, batches, call)['conv']
    assert share < 0.9
    assert permuted == pytest.approx(1)
    for name, value in dense.state_dict().items():
        assert torch.equal(before[name], value), name
    calibrate(dense, het, batches, call)
    torch.testing.assert_close(het(batches[0]), dense(batches[0]), rtol=1e-4, atol=1e-4)
    again = residual(p=4, arrangement='permuted')
    again.load_state_dict(het.state_dict())
    assert torch.equal(again(batches[0]), het(batches[0]))
