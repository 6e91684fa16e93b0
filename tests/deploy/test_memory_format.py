"""Operators that read memory row by row get it so in the inference form."""

import pytest
import torch
from mmcv.ops import DeformConv2dPack, ModulatedDeformConv2dPack, SAConv2d, deform_conv2d
from mmdet.registry import MODELS
from mmengine.config import Config
from torch import nn

from mmdet_hetconv.analysis import build_detector
from mmdet_hetconv.deploy import switch, switch_to_deploy
from mmdet_hetconv.kernels import Plan, planned_convs
from mmdet_hetconv.trace.examples import detect
from tests.narrow import stock

from .test_fold import trained
from .test_switch import switched


def drawn(model: nn.Module) -> nn.Module:
    """With offsets that matter: as built they are zero, which hides faults."""
    model = trained(model)
    for name, module in model.named_modules():
        if name.rpartition('.')[2] == 'conv_offset':
            nn.init.normal_(module.weight, std=0.1)
            nn.init.normal_(module.bias)
    return model


@pytest.mark.parametrize('kind', ['DCN', 'DCNv2'])
def test_backbones_with_deformable_convolutions(kind):
    dcn = dict(type=kind, deform_groups=1, fallback_on_stride=False)
    stages = (False, True, True, True)
    model = MODELS.build(
        dict(type='ResNet', depth=50, base_channels=8,
             dcn=dcn, stage_with_dcn=stages)
    )  # fmt: skip
    deployed = switched(drawn(model), torch.randn(1, 3, 96, 96))
    offsets = [module for name, module in deployed.named_modules() if name.endswith('conv_offset')]
    assert len(offsets) == 4 + 6 + 3
    assert set(offsets) <= set(planned_convs(deployed))


@pytest.mark.parametrize('kind', [DeformConv2dPack, ModulatedDeformConv2dPack])
def test_behind_convolutions(kind):
    model = nn.Sequential(
        nn.Conv2d(8, 16, 3, padding=1), kind(16, 16, 3, padding=1),
        nn.Conv2d(16, 8, 1),
    )  # fmt: skip
    switched(drawn(model), torch.randn(2, 8, 12, 10))


def test_switchable_atrous_convolution():
    """Its two small convolutions see and change what it convolves."""
    model = nn.Sequential(nn.Conv2d(8, 16, 1), SAConv2d(16, 16, 3, padding=1, use_deform=True))
    for conv in (model[1].switch, model[1].offset_s, model[1].offset_l):
        nn.init.normal_(conv.weight, std=0.1)
    switched(model.eval(), torch.randn(1, 8, 12, 10))


class Samples(nn.Module):
    """An operator as a function, as TOOD calls it; inputs by name."""

    def __init__(self):
        super().__init__()
        self.offset = nn.Conv2d(8, 18, 3, padding=1)
        self.maps = nn.Conv2d(8, 8, 1)
        self.weight = nn.Parameter(torch.randn(8, 8, 3, 3))

    def forward(self, levels, more):
        outputs = [
            deform_conv2d(x, self.offset(x), self.weight, 1, 1) for x in (*levels, *more['levels'])
        ]
        return [*outputs, deform_conv2d(
            self.maps(x := levels[0]), self.offset(x), self.weight, 1, 1
        )]  # fmt: skip


def test_functions():
    torch.manual_seed(0)
    model = Samples().eval()
    x = torch.randn(2, 8, 9, 7)
    with torch.no_grad():
        want = model([x], more=dict(levels=[2 * x]))
        switch_to_deploy(model)
        got = model([x], more=dict(levels=[2 * x]))
    assert len(planned_convs(model)) == 2
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_code_that_takes_views_of_a_heads_outputs():
    """Grid R-CNN's takes images and channels of its head's output together."""
    cfg = stock('grid_rcnn/grid-rcnn_r50_fpn_gn-head_2x_coco')
    cfg.test_cfg.rcnn.score_thr = 0.0
    model = switch_to_deploy(build_detector(cfg).eval(), Plan(only=['dense_nhwc'], frozen=True))
    (sample,) = detect(model, torch.randn(1, 3, 64, 96))
    assert len(sample.pred_instances) > 0


@pytest.mark.parametrize('rule', [True, False], ids=['by the rule', 'by the proof alone'])
def test_regions_that_a_head_cuts_out_by_a_method_of_its_own(rule, monkeypatch):
    """A RoI head's predict() is called, not the head; its RoIAlign reads row by row."""
    if not rule:
        monkeypatch.setattr(switch, 'keep_inputs', lambda *_: None)
    cfg = Config.fromfile('configs/faster_rcnn_het_r18_scratch.py').model
    torch.manual_seed(0)
    model = trained(build_detector(cfg))
    images = torch.randn(1, 3, 64, 96)
    (wanted,) = detect(model, images)
    plan = Plan(only=['dense_nhwc', 'two_branch_nhwc'], frozen=True)
    (found,) = detect(switch_to_deploy(model, plan), images)
    assert len(wanted.pred_instances) > 20
    torch.testing.assert_close(
        found.pred_instances.scores, wanted.pred_instances.scores, rtol=1e-3, atol=1e-4
    )
