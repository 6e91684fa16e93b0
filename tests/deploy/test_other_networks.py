"""Networks that are written in other ways than mmdet's, in their inference form.

Each kind was once computed wrongly, most of them without a word.
"""

import copy
from collections import OrderedDict, namedtuple
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmdet_hetconv.deploy import switch, switch_to_deploy
from mmdet_hetconv.deploy.rewriting import rewrite
from mmdet_hetconv.kernels import Plan, planned_convs
from mmdet_hetconv.layers import HetConv2d
from mmdet_hetconv.trace import difference

from .test_fold import trained

BOUNDS = dict(fp32=1e-5, bf16=0.03, int8=0.15)


def conv(channels=8, filters=8):
    return nn.Conv2d(channels, filters, 3, padding=1)


class Net(nn.Module):
    """Some modules and the code that runs them."""

    def __init__(self, code, **modules):
        super().__init__()
        for name, module in modules.items():
            setattr(self, name, module)
        self.code = code

    def forward(self, x):
        return self.code(self, x)


def layers(**more):
    parts = dict(conv1=conv(), bn1=nn.BatchNorm2d(8), act=nn.ReLU(), conv2=conv())
    return parts | more


class NormAndActivation(nn.BatchNorm2d):
    """As timm's BatchNormAct2d."""

    def forward(self, x):
        return super().forward(x).relu()


class Doubled(HetConv2d):
    def forward(self, x):
        return 2 * super().forward(x)


def in_turn(modules, x):
    for module in modules:
        x = module(x)
    return x


def collected(net, x):
    found = []
    for layer in net.seq:
        x = layer(x)
        if isinstance(layer, net.kind):
            found.append(x)
    return found


def parts_alone(net, x):
    return net.seq[0](x), net.seq(x)


def slices(net, x):
    y = net.seq[:1](x)
    return y, net.seq[1:](y.clone())


def sequence():
    return nn.Sequential(conv(), nn.BatchNorm2d(8), nn.ReLU(inplace=True), conv())


def plain_list():
    net = Net(lambda net, x: in_turn(net.steps, x), seq=sequence())
    net.steps = list(net.seq)
    return net


def replaced_forward(which):
    net = sequence()
    forward = net[which].forward
    net[which].forward = lambda x: forward(x) * 3
    return net


def shared_activation():
    act = nn.ReLU()
    return nn.Sequential(conv(), act, nn.BatchNorm2d(8), conv(), act, nn.BatchNorm2d(8))


def of_kind(kind):
    net = Net(collected, seq=sequence())
    net.kind = kind
    return net


def called_without_norm(net, x):
    return torch.cat([net.bn1(net.conv1(x)), net.conv1(x + 1)], 1)


def two_readers(net, x):
    y = net.conv1(x)
    return net.bn1(y) + y


def function_between(net, x):
    return net.bn1(F.relu(net.conv1(x)))


def sum_between(net, x):
    y = net.conv1(x)
    y += x
    return net.bn1(y)


def output_in_front_of_relu(net, x):
    y = net.bn1(net.conv1(x))
    return y, net.act(y)


def residual(net, x):
    return net.act(net.bn1(net.conv1(x)) + x)


def taken_by_getattr(net, x):
    return getattr(net, 'bn' + '1')(getattr(net, 'conv' + '1')(x))


def scaled_weight(net, x):
    return F.conv2d(x, net.conv1.weight * 2, padding=1) + net.conv1(x)


def asks_for_type(net, x):
    return net.conv1(x.to(next(net.parameters()).dtype))


def keywords(net, x):
    return net.conv2(input=net.conv1(input=x))


KINDS = {
    'norm that activates': lambda: nn.Sequential(conv(), NormAndActivation(8), conv()),
    'subclass of HetConv2d': lambda: nn.Sequential(Doubled(8, 8, 3, p=2, padding=1)),
    'shared activation': shared_activation,
    'plain list': plain_list,
    'a part alone': lambda: Net(parts_alone, seq=sequence()),
    'slices': lambda: Net(slices, seq=sequence()),
    'asks for ReLUs': lambda: of_kind(nn.ReLU),
    'asks for convolutions': lambda: of_kind(nn.Conv2d),
    'asks for norms': lambda: of_kind(nn.BatchNorm2d),
    'forward of a convolution': lambda: replaced_forward(0),
    'forward of a norm': lambda: replaced_forward(1),
    'forward of a ReLU': lambda: replaced_forward(2),
    **{
        code.__name__: lambda code=code: Net(code, **layers())
        for code in (
            *(called_without_norm, two_readers, function_between, sum_between),
            *(output_in_front_of_relu, residual, taken_by_getattr, scaled_weight),
            *(asks_for_type, keywords),
        )
    },
}


def switched(net, x, precision='fp32', **options):
    """The inference form, once it is near enough."""
    with torch.no_grad():
        wanted = net(x)
        if precision == 'int8':
            options['calibration'] = [x]
        net = switch_to_deploy(
            copy.deepcopy(net), Plan(frozen=True), precision=precision, **options
        )
        found = net(x)
    assert difference(found, wanted) < BOUNDS[precision]
    return net


@pytest.mark.parametrize('precision', BOUNDS)
@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.usefixtures('bfloat16_anywhere')
def test_kinds(kind, precision):
    torch.manual_seed(0)
    switched(trained(KINDS[kind]()), torch.randn(1, 8, 9, 7), precision)


@pytest.fixture
def said(monkeypatch):
    texts = []
    monkeypatch.setattr(switch, 'print_log', lambda text, *_, **__: texts.append(text))
    return texts


def test_what_is_left_is_named(said):
    of = trained(of_kind(nn.Conv2d))
    deployed = switched(of, torch.randn(1, 8, 9, 7))
    assert not planned_convs(deployed)
    assert 'as they were stay seq.0, seq.3' in ' '.join(said)


def test_a_wrong_rule_is_caught_undone_and_named(monkeypatch, said):
    """Of two convolutions with a norm one is folded wrongly."""
    net = trained(nn.Sequential(conv(), nn.BatchNorm2d(8), conv(8, 16), nn.BatchNorm2d(16)))
    fold = rewrite.fold

    def wrong(conv, norm):
        fold(conv, norm)
        if conv.out_channels == 16:
            conv.bias = nn.Parameter(conv.bias + 1)

    monkeypatch.setattr(rewrite, 'fold', wrong)
    deployed = switched(net, torch.randn(1, 8, 9, 7))
    assert type(deployed[2]) is nn.Conv2d and type(deployed[3]) is nn.BatchNorm2d
    assert len(planned_convs(deployed)) == 1 and type(deployed[1]) is nn.Identity
    assert 'as they were stay 2:' in ' '.join(said)


def test_a_model_that_does_not_run_on_images_is_exchanged_layer_by_layer(said):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = sequence()

        def forward(self, x, y):
            return self.body(x) * y

    net, x = trained(Two()), torch.randn(1, 8, 9, 7)
    wanted = net(x, 2)
    alone = switch_to_deploy(copy.deepcopy(net))
    assert len(planned_convs(alone)) == 2 and type(alone.body[1]) is nn.BatchNorm2d
    assert 'give an example' in ' '.join(said)
    assert difference(alone(x, 2), wanted) < 1e-5
    whole = switch_to_deploy(copy.deepcopy(net), example=(x, 2))
    assert type(whole.body[1]) is nn.Identity
    assert difference(whole(x, 2), wanted) < 1e-5


def test_a_model_that_differs_each_time():
    net = Net(lambda net, x: net.conv2(net.conv1(x) + torch.randn(1)), **layers()).eval()
    deployed = switch_to_deploy(net)
    assert len(planned_convs(deployed)) == 2


Pair = namedtuple('Pair', 'low high')


@dataclass
class Data:
    low: torch.Tensor
    high: torch.Tensor


@pytest.mark.parametrize('precision', ['bf16', 'int8'])
@pytest.mark.parametrize(
    'make', [Data, Pair, lambda a, b: OrderedDict(low=a, high=b), lambda a, b: [(a,), b]]
)
@pytest.mark.usefixtures('bfloat16_anywhere')
def test_what_leaves_the_model_is_float32(make, precision):
    def code(net, x):
        low = net.conv1(x)
        return make(low, net.conv2(low))

    # difference() is infinite between types.
    switched(Net(code, conv1=conv(), conv2=conv()).eval(), torch.randn(1, 8, 9, 7), precision)


@torch.jit.script
def swish(x):
    return x * x.sigmoid()


def sampled(net, x):
    grid = F.affine_grid(torch.tensor([[[1.0, 0.1, 0], [-0.1, 1.0, 0]]]), x.shape, False)
    return F.grid_sample(net.conv1(x), grid, align_corners=False)


READERS = dict(
    scripted=lambda net, x: swish(net.conv1(x)),
    scripted_module=lambda net, x: net.scripted(net.conv1(x)),
    traced=lambda net, x: net.traced[0](net.conv1(x)),
    grid_sample=sampled,
    einsum=lambda net, x: torch.einsum('bchw,cd->bdhw', net.conv1(x), net.mixing),
    functional=lambda net, x: F.conv2d(net.conv1(x), net.weights[0], padding=1),
    index_add=lambda net, x: torch.zeros(1, 8, 63).index_add(
        2, torch.arange(63), net.conv1(x).flatten(2)
    ),
    numpy=lambda net, x: torch.from_numpy(net.conv1(x).numpy() * 2),
    view=lambda net, x: net.fc(net.conv1(x).view(len(x), -1)),
)


@pytest.mark.parametrize('precision', BOUNDS)
@pytest.mark.parametrize('reader', READERS)
@pytest.mark.usefixtures('bfloat16_anywhere')
def test_readers_that_see_neither_layout_nor_type(reader, precision):
    torch.manual_seed(0)
    net = Net(
        lambda net, x: (READERS[reader](net, x), net.conv2(net.conv1(x))),
        **dict(conv1=conv(), conv2=conv(), fc=nn.Linear(8 * 63, 4)),
        weights=nn.ParameterList([nn.Parameter(torch.randn(8, 8, 3, 3))]),
        scripted=torch.jit.script(nn.SiLU()),
    ).eval()
    net.traced = [torch.jit.trace(lambda x: x * x.sigmoid(), torch.randn(1, 8, 9, 7))]
    net.register_buffer('mixing', torch.randn(8, 8))
    x = torch.randn(1, 8, 9, 7)
    with torch.no_grad():
        wanted = net(x)
    plan = Plan(frozen=True, only=['two_branch_nhwc', 'dense_nhwc', 'fused_int8', 'eager_int8'])
    options = dict(calibration=[x]) if precision == 'int8' else {}
    options['example'] = x
    deployed = switch_to_deploy(net, plan, precision=precision, **options)
    with torch.no_grad():
        assert difference(deployed(x), wanted) < BOUNDS[precision]
