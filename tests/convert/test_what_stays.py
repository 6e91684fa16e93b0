"""Convolutions that convert_model leaves, as the model's own code asks for them."""

import copy

import pytest
import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from torch import nn

from mmdet_hetconv.convert import convert_model
from mmdet_hetconv.convert.exchange import ASKED, READ
from mmdet_hetconv.layers import HetConv2d


class Net(nn.Module):
    def __init__(self, code):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(4, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.layers = nn.Sequential(*(nn.Conv2d(8, 8, 3, padding=1) for _ in range(2)))
        self.code = code

    def forward(self, x):
        return self.code(self, self.conv1(x))


def collected(net, x):
    found = []
    for layer in net.layers:
        x = layer(x)
        if isinstance(layer, nn.Conv2d):
            found.append(x)
    return net.conv2(x), found


def activated(net, x):
    """Nothing of what is returned has another form."""
    for layer in net.layers:
        x = layer(x)
        if type(layer) is nn.Conv2d:
            x = x.relu()
    return net.conv2(x)


def first_dtype(net, x):
    return net.conv2(x.to(next(net.layers.parameters()).dtype))


LEFT = dict(
    dtype=(lambda net, x: net.conv2(x.to(net.conv2.weight.dtype)), {'conv2': READ}),
    first_dtype=(first_dtype, {'layers.0': READ}),
    weight=(lambda net, x: F.conv2d(x, net.conv2.weight), {'conv2': READ}),
    bias=(lambda net, x: net.conv2(x) if net.conv2.bias is not None else x, {'conv2': ASKED}),
    collected=(collected, dict.fromkeys(('layers.0', 'layers.1'), ASKED)),
    activated=(activated, dict.fromkeys(('layers.0', 'layers.1'), ASKED)),
    nothing=(lambda net, x: net.layers(net.conv2(x)), {}),
)


@pytest.mark.parametrize('code, left', LEFT.values(), ids=LEFT)
@pytest.mark.parametrize('hidden', [False, True])
def test_what_code_reads_or_asks_for(code, left, hidden):
    """A dense first convolution may be in a plain list, which torch does not see."""
    net = Net(code)
    if hidden:
        plain = [nn.Conv2d(3, 4, 1)]
        net.code = lambda net, x: code(net, x)
        net.forward, inner = lambda x: inner(plain[0](x)), net.forward
    report = convert_model(net, p=2)
    found = {r.name: r.reason for r in report.left if r.reason in (READ, ASKED)}
    assert found == left
    assert all(isinstance(record.layer, HetConv2d) for record in report.converted)
    assert {type(net.get_submodule(name)) for name in left} <= {nn.Conv2d}
    net(torch.randn(1, 3 if hidden else 4, 8, 8))


def test_a_forward_that_is_replaced_on_the_instance():
    net = nn.Sequential(nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3))
    inner = net[1].forward
    net[1].forward = lambda x: 2 * inner(x)
    x = torch.randn(1, 8, 8, 8)
    report = convert_model(net, p=2)
    assert [record.reason for record in report.left] == ['its forward is replaced on the instance']
    with torch.no_grad():
        y = net[0](x)
        torch.testing.assert_close(net[1](y), 2 * F.conv2d(y, net[1].weight, net[1].bias))


def test_looking_leaves_everything_as_it_was():
    class Counting(Net):
        def __init__(self, code):
            super().__init__(code)
            self.register_buffer('calls', torch.zeros(1))

        def forward(self, x):
            self.calls += 1
            return super().forward(x + 0 * torch.rand_like(x))

    net = Counting(lambda net, x: net.layers(net.bn(net.conv2(x)))).train()
    net.bn.eval()
    before = copy.deepcopy(net.state_dict())
    torch.manual_seed(3)
    copied = copy.deepcopy(net)
    convert_model(copied, p=2, exclude=['conv1', 'conv2', 'layers.1'])
    after = torch.rand(1)
    torch.manual_seed(3)
    HetConv2d(8, 8, 3, p=2)
    assert torch.equal(after, torch.rand(1))
    assert copied.training and copied.layers[0].training and not copied.bn.training
    for name in ('calls', 'bn.running_mean', 'bn.num_batches_tracked', 'conv1.weight'):
        assert torch.equal(copied.state_dict()[name], before[name]), name


def test_models_that_take_no_image_and_those_without_numbers():
    class Two(Net):
        def forward(self, x, y):
            return super().forward(x + y)

    code = LEFT['nothing'][0]
    assert len(convert_model(Two(code), p=2).converted) == 3
    with torch.device('meta'):
        net = Net(code)
    assert len(convert_model(net, p=2).converted) == 3
    assert all(parameter.is_meta for parameter in net.parameters())
    with torch.device('meta'):
        net = Net(LEFT['dtype'][0])
    assert convert_model(net, p=2).left[-1].reason == READ


def test_a_detector():
    """As many layers as ever; its parts are asked for by name only."""
    levels = dict(ratios=[1.0], strides=[8, 16, 32, 64, 128], scales=[4])
    head = dict(num_classes=2, in_channels=16, feat_channels=16, stacked_convs=1)
    nms = dict(nms_pre=10, score_thr=0.0, nms=dict(type='nms', iou_threshold=0.5), max_per_img=50)
    with MODELS.switch_scope_and_registry('mmdet'):
        detector = MODELS.build(
            dict(
                type='RetinaNet',
                data_preprocessor=dict(type='DetDataPreprocessor'),
                backbone=dict(type='ResNet', depth=18),
                neck=dict(type='FPN', in_channels=[64, 128, 256, 512], out_channels=16, num_outs=5),
                bbox_head=dict(
                    type='RetinaHead',
                    **head,
                    anchor_generator=dict(type='AnchorGenerator', **levels),
                    bbox_coder=dict(type='DeltaXYWHBBoxCoder'),
                ),
                test_cfg=nms,
            )
        )
    report = convert_model(detector, p=2)
    assert not {READ, ASKED}.intersection(record.reason for record in report.left)
    assert len(report.converted) == 24
    assert detector.bbox_head.test_cfg['max_per_img'] == 50
