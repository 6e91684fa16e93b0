"""Deployed models whose convolutions compute in 8 bits."""

import copy

import pytest
import torch
from mmdet.models.backbones import ResNet
from torch import nn

from mmdet_hetconv.deploy import switch_to_deploy
from mmdet_hetconv.deploy.byte_outputs import byte_outputs
from mmdet_hetconv.deploy.int8_errors import _centre
from mmdet_hetconv.deploy.quantization import quantize, set_int8
from mmdet_hetconv.kernels import Plan, PlannedConv2d, planned_convs
from mmdet_hetconv.kernels.quantized import QuantizedTensor
from mmdet_hetconv.layers import HetConv2d
from mmdet_hetconv.trace import difference, record

from .test_fold import trained


def call(model, batch):
    return model(batch)


def deployed(model):
    return switch_to_deploy(model, Plan(frozen=True))  # untimed: this is about numbers


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        HetConv2d(8, 32, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        HetConv2d(32, 32, 3, padding=1, p=2),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(32, 8, 1),
    ).eval()


def convs_of(model):
    return {n: m for n, m in model.named_modules() if isinstance(m, PlannedConv2d)}


def test_outputs_are_near_and_bytes_are_between_convolutions():
    net, x = small(), torch.randn(2, 8, 12, 10)
    with torch.no_grad():
        wanted = net(x)
    report = quantize(deployed(net), [x], call)
    assert [int8.output is not None for int8 in report.int8.values()] == [True, False, False]
    kinds = []
    for conv in planned_convs(net):
        conv.register_forward_hook(lambda m, args, y: kinds.append(type(y)))
    y = net(x)  # also without no_grad()
    assert kinds == [QuantizedTensor, torch.Tensor, torch.Tensor]
    assert y.dtype == torch.float32
    error = (y - wanted).norm() / wanted.norm()
    assert 0 < error < 0.03
    # Each layer's own share was measured, and they add up as independent ones.
    assert error**2 < 3 * sum(report.error.values())
    assert 'bytes' in str(report)
    assert str(report).count('int8') == 3


def test_one_word_for_the_user():
    x = torch.randn(2, 8, 12, 10)
    net = switch_to_deploy(small(), Plan(frozen=True), precision='int8', calibration=[x])
    assert all(conv.int8 for conv in planned_convs(net))
    with pytest.raises(ValueError, match='needs calibration inputs'):
        switch_to_deploy(small(), precision='int8')


def test_again_starts_from_floats():
    """Errors are against the float form, and what fails leaves the levels that there were."""
    net, x = deployed(small()), torch.randn(2, 8, 12, 10)
    first = quantize(net, [x], call)
    again = quantize(net, [x], call, keep=['5'])
    assert {name: again.error[name] for name in '03'} == {name: first.error[name] for name in '03'}
    assert [int8 is None for int8 in again.int8.values()] == [False, False, True]
    before = [conv.int8 for conv in planned_convs(net)]
    with pytest.raises(ValueError, match='is not finite'):
        quantize(net, [x / 0], call)
    assert [conv.int8 for conv in planned_convs(net)] == before


def test_layers_that_are_kept():
    net, x = deployed(small()), torch.randn(2, 8, 12, 10)
    report = quantize(net, [x], call, keep=['3', '5*'])
    assert [int8 is None for int8 in report.int8.values()] == [False, True, True]
    assert report.int8['0'].output is None  # its reader wants floats
    assert str(report).count('kept') == 2
    with pytest.raises(ValueError, match="keep: 'neck' is none of the convolutions"):
        quantize(net, [x], call, keep=['neck'])


def test_a_layer_that_loses_too_much_is_kept():
    """One large weight to a channel that is nearly 0 takes all levels."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(4, 4, 1, bias=False), nn.Conv2d(4, 4, 1, bias=False))
    x = torch.randn(1, 4, 16, 16)
    x[:, 0] *= 1e-4
    net[0].weight.data[:, 0] = 1e3
    net[0].weight.data[:, 1:] *= 0.01
    report = quantize(deployed(net.eval()), [x], call)
    assert report.error['0'] > 0.01 > report.error['1']
    assert report.int8['0'] is None
    assert report.int8['1'] is not None


def test_what_a_bias_hides_is_seen():
    """Next to a large constant all levels are too coarse for what varies."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)).eval()
    x = 50 + 0.1 * torch.randn(1, 4, 16, 16)
    with torch.no_grad():
        net[1].bias -= net(x).mean((0, 2, 3))
    report = quantize(deployed(net), [x], call)
    assert report.error['0'] > 0.01
    assert report.int8['0'] is None


def test_the_network_runs_for_few_layers_and_nothing_is_timed():
    torch.manual_seed(0)
    net = trained(ResNet(18, base_channels=16, init_cfg=None))
    plan = Plan()
    net = switch_to_deploy(net, plan)
    runs = []
    report = quantize(net, [torch.randn(1, 3, 64, 64)], lambda m, x: runs.append(m(x)))
    assert len(report.error) == 20
    # Levels and own errors take a run each, who reads bytes two, the proof three; the
    # others are of few layers.
    assert len(runs) < 14
    assert not plan.choices and not plan.frozen
    net(torch.randn(1, 3, 64, 64))
    assert plan.choices and all(choice.reason == 'timed' for choice in plan.choices.values())


def test_a_constant_input_tells_no_range():
    net = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1)).eval()
    nn.init.constant_(net[0].bias, -100.0)
    report = quantize(deployed(net), [torch.randn(1, 4, 5, 5)], call)
    assert report.int8['2'] is None
    assert 'not measured' in str(report)


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_what_is_not_finite_is_refused(value):
    net, x = deployed(small()), torch.randn(1, 8, 12, 10)
    x[0, 0, 0, 0] = value
    with pytest.raises(ValueError, match='0: a feature map .* not finite'):
        quantize(net, [x], call)
    assert not any(conv.int8 for conv in planned_convs(net))


def test_without_images():
    with pytest.raises(ValueError, match='needs calibration images'):
        quantize(deployed(small()), [], call)


def test_a_resnet_is_bytes_from_its_stem_on():
    torch.manual_seed(0)
    net = trained(ResNet(18, base_channels=16, init_cfg=None, conv_cfg=dict(type='HetConv', p=4)))
    net.eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        wanted = net(x)
    net = deployed(net)
    report = quantize(net, [x], call)
    floats = [name for name, int8 in report.int8.items() if int8.output is None]
    # The last of each stage is put out.
    assert floats == [f'layer{i}.1.conv2' for i in (1, 2, 3, 4)]
    for mine, theirs in zip(net(x), wanted, strict=True):
        assert (mine - theirs).norm() / theirs.norm() < 0.1


class Reads(nn.Module):
    """Two convolutions and what another part reads of the first."""

    def __init__(self, read):
        super().__init__()
        self.first, self.second = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.read = read

    def forward(self, x):
        x = self.first(x)
        return self.second(nn.functional.max_pool2d(x, 2)), self.read(x)


@pytest.mark.parametrize(
    'read, bytes_first',
    [
        (lambda x: x.shape[0], True),
        (lambda x: x, False),
        (lambda x: dict(maps=[x]), False),
        (lambda x: nn.functional.max_pool2d(x, 2), False),
        (lambda x: x.mean(), False),
        (lambda x: x[:1], False),
        (lambda x: torch.cat([x, x]).shape, False),
    ],
)
def test_who_reads_an_output(read, bytes_first):
    net = deployed(Reads(read).eval())
    convs = convs_of(net)
    seen = [record(net, lambda: net(torch.randn(1, 4, 6, 6)))]
    assert byte_outputs(convs, seen, set(convs)) == ({'first'} if bytes_first else set())
    assert byte_outputs(convs, seen, {'first'}) == set()


def test_levels_of_layers_that_are_not_there():
    with pytest.raises(ValueError, match="'neck' is no convolution"):
        set_int8(deployed(small()), {'neck': None})


def test_convolutions_that_are_called_by_keyword():
    class Keywords(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3)

        def forward(self, x):
            return self.b(input=self.a(input=x))

    torch.manual_seed(0)
    model, x = Keywords().eval(), torch.randn(2, 8, 12, 12)
    expected = model(x)
    deployed = switch_to_deploy(
        copy.deepcopy(model), Plan(frozen=True), precision='int8', calibration=[x]
    )
    assert all(conv.int8 is not None for conv in planned_convs(deployed))
    assert 0 < difference(deployed(x), expected) < 0.05


def test_single_layers_are_followed_on_the_centre_of_large_images():
    sizes = []

    def run(model, batch):
        sizes.append(tuple(batch.shape[2:]))
        with torch.no_grad():
            return model(batch)

    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)).eval()
    assert _centre(model, torch.zeros(1, 3, 400, 200), run).shape == (1, 3, 320, 200)
    small = torch.zeros(1, 3, 300, 300)
    assert _centre(model, small, run) is small and sizes == [(320, 200)]
    one_size = nn.Sequential(nn.Conv2d(3, 1, 1), nn.Flatten(), nn.Linear(400 * 200, 2)).eval()
    large = torch.zeros(1, 3, 400, 200)
    assert _centre(one_size, large, run) is large
