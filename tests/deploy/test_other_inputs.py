"""What a network does on inputs other than the examples, and what switching leaves behind."""

import copy
import io
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmdet_hetconv.deploy import fold_bn, switch_to_deploy
from mmdet_hetconv.kernels import Plan, planned_convs
from mmdet_hetconv.trace import difference, record

from .test_fold import trained
from .test_other_networks import BOUNDS, Net, conv, layers, switched


def norm_where(condition):
    """A convolution whose norm is left out for some images."""

    def code(net, x):
        y = net.conv1(x)
        return net.conv2(net.act(net.bn1(y) if condition(x) else y))

    return code


def norm_by_match(net, x):
    y = net.conv1(x)
    match len(x):
        case 3:
            pass
        case _:
            y = net.bn1(y)
    return net.conv2(y)


def norm_by_table(net, x):
    norm = {3: net.act}.get(x.shape[0], net.bn1)
    return net.conv2(norm(net.conv1(x)))


def padded_where_odd(net, x):
    y = net.conv1(x)
    if y.shape[-1] % 2:
        y = F.pad(y, (0, 1, 0, 0))
    return net.conv2(net.bn1(y))


class Inner(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = conv(), nn.BatchNorm2d(8)

    def forward(self, x, is_normed):
        y = self.conv(x)
        return self.norm(y) if is_normed else y


OTHERS = {
    'another number of images': (norm_where(lambda x: x.shape[0] != 3), (3, 8, 12, 16)),
    'one image': (norm_where(lambda x: len(x) > 1), (1, 8, 12, 16)),
    'large images': (norm_where(lambda x: x.shape[2] * x.shape[3] < 40_000), (1, 8, 250, 250)),
    'small images': (norm_where(lambda x: min(x.shape[-2:]) > 8), (1, 8, 6, 6)),
    'upright images': (norm_where(lambda x: x.shape[2] < x.shape[3]), (2, 8, 16, 12)),
    'bright images': (norm_where(lambda x: x.mean() < 5), (2, 8, 12, 16)),
    'a bright pixel': (norm_where(lambda x: x.max().item() < 8), (2, 8, 12, 16)),
    'match': (norm_by_match, (3, 8, 12, 16)),
    'table': (norm_by_table, (3, 8, 12, 16)),
    'odd widths': (padded_where_odd, (2, 8, 12, 15)),
    'a flag': (lambda net, x: net.conv2(net.inner(x, len(x) < 3)), (3, 8, 12, 16)),
}


@pytest.mark.parametrize('is_given', [False, True])
@pytest.mark.parametrize('name', OTHERS)
def test_code_that_decides_by_values_and_sizes(name, is_given):
    torch.manual_seed(0)
    code, shape = OTHERS[name]
    net = trained(Net(code, inner=Inner(), **layers()))
    shown = torch.randn(2, 8, 12, 16)
    deployed = switched(net, shown, **dict(example=shown if is_given else None))
    other = torch.randn(shape) + (10 if name.startswith(('bright', 'a bright')) else 0)
    with torch.no_grad():
        assert difference(deployed(other), net(other)) < 1e-5


def test_what_decides_elsewhere_hinders_nothing():
    """Only the code itself that compares sizes keeps its norms."""
    body = nn.Sequential(conv(), nn.BatchNorm2d(8), nn.ReLU())
    net = trained(Net(lambda net, x: net.body(x if len(x) > 1 else x + 1), body=body))
    (planned,) = planned_convs(switched(net, torch.randn(2, 8, 12, 16)))
    assert planned.relu


class Counts(nn.Module):
    """Keeps what it has seen: a number, a list, an attribute."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = conv(), nn.BatchNorm2d(8)
        self.register_buffer('count', torch.zeros(()))
        self.shapes = []

    def forward(self, x):
        self.count += 1
        self.shapes.append(x.shape)
        self.last = F.relu(self.norm(self.conv(x)))
        return self.last


@pytest.mark.parametrize('change', [fold_bn, switch_to_deploy])
def test_buffers_and_random_numbers_are_left_alone(change):
    net = nn.Sequential(Counts(), conv()).eval()
    net[0].count.fill_(7)
    state = torch.get_rng_state()
    net = change(net) if change is switch_to_deploy else (change(net), net)[1]
    assert net[0].count == 7 and torch.equal(torch.get_rng_state(), state)
    assert all(isinstance(shape, torch.Size) for shape in net[0].shapes)


def test_what_a_module_keeps_is_read_from_outside():
    def code(net, x):
        net.kept = net.conv1(x)
        return net.bn1(net.kept)

    net, x = trained(Net(code, **layers())), torch.randn(1, 8, 9, 7)
    deployed = switched(net, x)
    assert difference(deployed.kept, net.kept) < 1e-5


def in_threads(net, x):
    def run(module):
        with torch.no_grad():
            return module(x)

    with ThreadPoolExecutor(2) as pool:
        return torch.cat(list(pool.map(run, [net.left, net.right])), 1)


def test_modules_in_other_threads_are_exchanged_one_by_one():
    def part():
        return nn.Sequential(conv(), nn.BatchNorm2d(8))

    net, x = trained(Net(in_threads, left=part(), right=part())), torch.randn(1, 8, 9, 7)
    deployed = switched(net, x)
    assert len(planned_convs(deployed)) == 2 and type(deployed.left[1]) is nn.BatchNorm2d
    with pytest.raises(ValueError, match='runs modules in another thread'):
        switch_to_deploy(copy.deepcopy(net), precision='int8', calibration=[x])


def read_in_a_thread(net, x):
    y = net.conv1(x)
    with ThreadPoolExecutor(1) as pool:
        return net.bn1(y), pool.submit(lambda: y.detach() * 2).result()


def reads_the_norm(net, x):
    return net.bn1(net.conv1(x)) * net.bn1.running_var.view(1, -1, 1, 1)


def asks_for_the_bias(net, x):
    y = net.bn1(net.conv1(x))
    return y if net.conv1.bias is None else y + 1


def asks_for_features(net, x):
    return net.bn1(net.conv1(x)) * net.bn1.num_features


def batch_statistics(net, x):
    y = net.conv1(x)
    net.bn1.train()
    y = net.bn1(y)
    net.bn1.eval()
    return y


@pytest.mark.parametrize(
    'code',
    [read_in_a_thread, reads_the_norm, asks_for_the_bias, asks_for_features, batch_statistics],
)
def test_folding_is_proven(code):
    parts = layers(conv1=nn.Conv2d(8, 8, 3, padding=1, bias=False))
    net, x = trained(Net(code, **parts)), torch.randn(2, 8, 9, 7)
    net.bn1.momentum = 0.0
    folded = copy.deepcopy(net)
    assert fold_bn(folded) == 0
    with torch.no_grad():
        assert difference(folded(x), net(x)) < 1e-5


def test_norms_that_train_are_not_folded():
    net = nn.Sequential(conv(), nn.BatchNorm2d(8), conv(), nn.BatchNorm2d(8)).train()
    net[3].eval()
    assert fold_bn(net) == 1
    assert type(net[1]) is nn.BatchNorm2d and type(net[3]) is nn.Identity
    assert net[1].training and net[2].training


def test_int8_beside_scripted_modules():
    scripted = torch.jit.script(nn.Sequential(conv(), nn.ReLU()).eval())
    net = Net(lambda net, x: net.scripted(net.conv1(x)), conv1=conv(), scripted=scripted).eval()
    x = torch.randn(1, 8, 9, 7)
    # Parameters of the copy are no leaves.
    deployed = copy.deepcopy(net)
    switch_to_deploy(deployed, Plan(frozen=True), precision='int8', calibration=[x])
    assert difference(deployed(x), net(x)) < BOUNDS['int8']


class Root(nn.Module):
    """Functions in the model's own code; it has attributes and methods."""

    stages = 2

    def __init__(self):
        super().__init__()
        for name, module in layers().items():
            setattr(self, name, module)

    def forward(self, x):
        batch, _, height, width = x.shape
        y = F.relu(self.bn1(self.conv1(x)) + x)
        return y.view(batch, 8, height * width).view(x.shape) + F.relu(self.conv2(y))

    def features(self, x):
        return self.conv1(x)


def test_functions_of_the_model_itself_are_fused(monkeypatch):
    # Our tools switch whole pickles off for their process.
    monkeypatch.delenv('TORCH_FORCE_WEIGHTS_ONLY_LOAD', raising=False)
    net, x = trained(Root()), torch.randn(1, 8, 9, 7)
    deployed = switched(net, x)
    assert isinstance(deployed, Root) and deployed.stages == 2
    assert deployed.features(x).shape == x.shape
    seen = record(deployed, lambda: deployed(x))
    names = [getattr(call.target, '__name__', '') for call in seen.calls]
    assert 'relu' not in names and names.count('add') == 1
    file = io.BytesIO()
    torch.save(deployed, file)
    file.seek(0)
    wanted = deployed(x)
    for again in (torch.load(file, weights_only=False), copy.deepcopy(deployed)):
        assert isinstance(again, Root)
        assert difference(again(x), wanted) < 1e-6
        assert len(planned_convs(switch_to_deploy(again, Plan(frozen=True)))) == 2
        assert difference(again(x), wanted) < 1e-6
