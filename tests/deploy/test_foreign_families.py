"""Networks as torchvision, timm and Ultralytics write them: right, and fused."""

import copy

import pytest
import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from mmengine.config import Config
from torch import nn

from mmdet_hetconv.deploy import switch_to_deploy
from mmdet_hetconv.kernels import Plan, planned_convs
from mmdet_hetconv.trace import difference, record
from mmdet_hetconv.trace.examples import forward_tensors

from .test_fold import trained
from .test_other_networks import BOUNDS


class Bottleneck(nn.Module):
    """torchvision's: one ReLU module for three places, a sum in place."""

    def __init__(self, channels, width, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride > 1 or channels != 4 * width:
            conv = nn.Conv2d(channels, 4 * width, 1, stride, bias=False)
            self.downsample = nn.Sequential(conv, nn.BatchNorm2d(4 * width))

    def forward(self, x):
        identity = x
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        if self.downsample is not None:
            identity = self.downsample(x)
        out += identity
        return self.relu(out)


class ResNet(nn.Module):
    def __init__(self, block=Bottleneck):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = nn.Sequential(block(16, 8), block(32, 8))
        self.layer2 = nn.Sequential(block(32, 16, 2), block(64, 16))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(64, 10)

    def forward(self, x):
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer2(self.layer1(x))
        return self.fc(torch.flatten(self.avgpool(x), 1))


class Functional(Bottleneck):
    """The same with functions, as in many a paper's code."""

    def forward(self, x):
        out = F.relu(self.bn1(self.conv1(x)))
        out = torch.relu_(self.bn2(self.conv2(out)))
        shortcut = x if self.downsample is None else self.downsample(x)
        return F.relu(shortcut + self.bn3(self.conv3(out)), inplace=True)


class NormAct(nn.BatchNorm2d):
    """timm's norm with an activation."""

    def __init__(self, channels):
        super().__init__(channels)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x):
        return self.act(super().forward(x))


class Conv(nn.Module):
    """Ultralytics' convolution."""

    def __init__(self, channels, filters, kernel=1, stride=1, act=None):
        super().__init__()
        self.conv = nn.Conv2d(channels, filters, kernel, stride, kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(filters)
        self.act = act or nn.SiLU()

    def forward(self, x):
        return self.act(self.bn(self.conv(x)))


class Residual(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.cv1, self.cv2 = Conv(channels, channels, 3), Conv(channels, channels, 3)

    def forward(self, x):
        return x + self.cv2(self.cv1(x))


class C2f(nn.Module):
    def __init__(self, channels, filters, count=2):
        super().__init__()
        self.width = filters // 2
        self.cv1 = Conv(channels, filters)
        self.cv2 = Conv((2 + count) * self.width, filters)
        self.m = nn.ModuleList(Residual(self.width) for _ in range(count))

    def forward(self, x):
        y = list(self.cv1(x).chunk(2, 1))
        y.extend(m(y[-1]) for m in self.m)
        return self.cv2(torch.cat(y, 1))


class Yolo(nn.Module):
    """A list of layers of which later ones read earlier outputs."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(
            [Conv(3, 16, 3, 2), C2f(16, 32), Conv(32, 32, 3, 2), C2f(32, 32)]
            + [nn.Upsample(scale_factor=2), C2f(64, 32), nn.Conv2d(32, 7, 1)]
        )

    def forward(self, x):
        kept = []
        for i, layer in enumerate(self.layers):
            x = layer(torch.cat([x, kept[1]], 1) if i == 5 else x)
            kept.append(x)
        return [kept[3], x.flatten(2).transpose(1, 2)]


FAMILIES = {
    'torchvision': (ResNet, 0),
    'functions': (lambda: ResNet(Functional), 0),
    'timm': (
        lambda: nn.Sequential(nn.Conv2d(3, 16, 3, 2), NormAct(16), nn.Conv2d(16, 8, 1), NormAct(8)),
        2,
    ),
    'YOLO': (Yolo, 0),
}


@pytest.mark.parametrize('precision', BOUNDS)
@pytest.mark.parametrize('family', FAMILIES)
@pytest.mark.usefixtures('bfloat16_anywhere')
def test_families(family, precision):
    torch.manual_seed(0)
    make, norms = FAMILIES[family]
    net = trained(make())
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        wanted = net(x)
        options = dict(calibration=[x]) if precision == 'int8' else {}
        deployed = switch_to_deploy(
            copy.deepcopy(net), Plan(frozen=True), precision=precision, **options
        )
        assert difference(deployed(x), wanted) < BOUNDS[precision]
    convs = sum(type(module) is nn.Conv2d for module in net.modules())
    assert len(planned_convs(deployed)) == convs
    assert sum(isinstance(m, nn.BatchNorm2d) for m in deployed.modules()) == norms


@pytest.mark.parametrize('family', ['torchvision', 'functions'])
def test_nothing_is_left_to_functions_in_residual_blocks(family):
    net = switch_to_deploy(trained(FAMILIES[family][0]()), Plan(frozen=True))
    seen = record(net, lambda: net(torch.randn(1, 3, 64, 64)))
    called = [type(call.target).__name__ for call in seen.calls if call.is_module]
    assert set(called) <= {'PlannedConv2d', 'Identity', 'MaxPool2d', 'AdaptiveAvgPool2d', 'Linear'}
    assert not any(
        getattr(call.target, '__name__', '').strip('_') in ('relu', 'add', 'iadd')
        for call in seen.calls
    )


def test_a_detector_of_mmdet_that_cannot_decode():
    """mmdet 3.3's SSDHead has predictions, and predict() raises (issue 11063)."""
    cfg = Config.fromstring("_base_ = 'mmdet::ssd/ssd300_coco.py'", '.py').model
    cfg.backbone.init_cfg = None
    cfg.update(init_cfg=None)
    model = trained(MODELS.build(cfg))
    deployed = switch_to_deploy(copy.deepcopy(model), Plan(frozen=True))
    assert all(conv.relu for conv in planned_convs(deployed.backbone))
    images = torch.randn(1, 3, 300, 300)
    wanted, found = (forward_tensors(net, images) for net in (model, deployed))
    assert difference(found, wanted) < 1e-4
