"""Models that compute in fewer bits between their inputs and outputs."""

import pytest
import torch
from mmdet.models.backbones import ResNet
from mmengine.config import Config
from torch import nn

from mmdet_hetconv.analysis import build_detector
from mmdet_hetconv.deploy import precision, switch_to_deploy
from mmdet_hetconv.export.onnx import RawOutputs
from mmdet_hetconv.kernels import Plan, planned_convs
from mmdet_hetconv.layers import HetConv2d
from mmdet_hetconv.trace.examples import detect
from tests.narrow import stock

from .test_fold import trained

HET = dict(type='HetConv', p=4)


pytestmark = pytest.mark.usefixtures('bfloat16_anywhere')


def deployed(model, how='bf16'):
    # Untimed: this is about numbers.
    return switch_to_deploy(model, Plan(frozen=True), precision=how)


def test_outputs_are_float32_and_near():
    torch.manual_seed(0)
    net = nn.Sequential(
        HetConv2d(8, 32, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        HetConv2d(32, 32, 3, padding=1, p=2),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(32, 8, 1),
    ).eval()
    x = torch.randn(2, 8, 12, 10)
    with torch.no_grad():
        wanted = net(x)
        net = deployed(net)
        kinds = []
        for conv in planned_convs(net):
            conv.register_forward_hook(lambda m, args, y: kinds.append(y.dtype))
        y = net(x)
    assert kinds == [torch.bfloat16] * 3
    assert y.dtype == torch.float32
    assert not torch.equal(y, wanted)
    # Three layers, each of which rounds what it gets and what it gives.
    torch.testing.assert_close(y, wanted, rtol=0, atol=6 * 2**-9 * float(wanted.abs().max()))


@pytest.mark.parametrize('first', ['bf16', 'int8'])
@pytest.mark.parametrize('second', ['fp32', 'bf16'])
def test_the_precision_asked_for_last_counts(first, second):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3)).eval()
    x = torch.randn(1, 8, 9, 9)
    with torch.no_grad():
        wanted = net(x)
        net = switch_to_deploy(net, Plan(frozen=True), precision=first, calibration=[x])
        assert not torch.equal(net(x), wanted)
        net = deployed(net, second)
    dtype = torch.bfloat16 if second == 'bf16' else None
    assert {(conv.compute_dtype, conv.int8) for conv in planned_convs(net)} == {(dtype, None)}
    bound = 0.01 if second == 'bf16' else 1e-5
    assert (net(x) - wanted).norm() / wanted.norm() < bound


@pytest.mark.parametrize(
    'name, bound',
    [
        ('retinanet/retinanet_r18_fpn_1x_coco', 0.03),
        ('fcos/fcos_r50-caffe_fpn_gn-head_1x_coco', 0.06),
        ('ssd/ssd300_coco', 0.03),
    ],
)
def test_heads_of_single_stage_detectors(name, bound):
    cfg = Config.fromfile('configs/ssd300_het_vgg16.py').model
    if 'ssd' not in name:
        cfg = stock(name, conv_cfg=HET)
    model = trained(build_detector(cfg))
    size = (300, 300) if 'ssd' in name else (64, 96)
    images = torch.randn(1, 3, *size)
    wanted = RawOutputs(model)(images)
    model = deployed(model)
    largest = max(theirs.abs().max() for theirs in wanted)
    for mine, theirs in zip(RawOutputs(model)(images), wanted, strict=True):
        assert mine.dtype == torch.float32
        assert (mine - theirs).abs().max() < bound * largest
    (sample,) = detect(model, images)
    assert sample.pred_instances.bboxes.dtype == torch.float32


def test_region_heads_and_their_own_kernels():
    """RoIAlign and deformable convolution know float32 alone."""
    cfg = stock('dcnv2/mask-rcnn_r50-mdconv-c3-c5_fpn_1x_coco')
    cfg.neck.conv_cfg = HET
    cfg.test_cfg.rcnn.score_thr = 0.0
    model = deployed(trained(build_detector(cfg)))
    (sample,) = detect(model, torch.randn(1, 3, 64, 96))
    assert len(sample.pred_instances) > 0
    assert sample.pred_instances.bboxes.dtype == torch.float32


def test_what_is_not_to_be_had_is_refused(monkeypatch):
    net = nn.Sequential(HetConv2d(8, 8, 3))
    with pytest.raises(ValueError, match="precision='fp16'"):
        switch_to_deploy(net, precision='fp16')
    monkeypatch.setattr(precision, '_computes_bf16', lambda device: False)
    with pytest.raises(ValueError, match='multiplies no bfloat16, it has fp32'):
        switch_to_deploy(net, precision='bf16')
    # Nothing was changed on the way.
    assert isinstance(net[0], HetConv2d)


def test_fp32_is_the_default():
    net = switch_to_deploy(ResNet(18, base_channels=8, init_cfg=None))
    assert {conv.compute_dtype for conv in planned_convs(net)} == {None}
