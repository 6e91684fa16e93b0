from pathlib import Path

import pytest
import torch
from mmengine.analysis import FlopAnalyzer
from mmengine.config import Config
from torch import nn

from mmdet_hetconv.analysis import build_detector, count_complexity, count_config, input_shape
from mmdet_hetconv.layers import HetConv2d
from mmdet_hetconv.models import set_p

CONFIGS = Path(__file__).parents[2] / 'configs'
IMAGE_TO_RPN = ('backbone', 'neck', 'dense head')


def load(name: str) -> Config:
    return Config.fromfile(CONFIGS / f'{name}.py')


def saved(result, parts=None) -> float:
    return 1 - result.total('macs', parts) / result.total('dense_macs', parts)


@pytest.fixture(scope='module')
def faster_rcnn():
    cfg = load('faster_rcnn_het_r50_full')
    return count_config(cfg.model, input_shape(cfg))


def test_faster_rcnn_saves_48_percent(faster_rcnn):
    """47.97 %: two thirds of the 3 x 3 convolutions' share of 71.96 %."""
    assert faster_rcnn.shape == (800, 1344)
    assert faster_rcnn.components() == [*IMAGE_TO_RPN, 'RoI head']
    assert round(saved(faster_rcnn, IMAGE_TO_RPN), 2) == 0.48
    assert [faster_rcnn.heterogeneous(p) for p in faster_rcnn.components()] == ([16, 4, 1, 0])
    # 202.8 G with the norms and the upsampling that a FLOP counter adds
    dense = faster_rcnn.total('dense_macs', IMAGE_TO_RPN)
    assert 0.99 < dense / 202.8e9 < 1.0


def test_ssd300_saves_63_percent():
    cfg = load('ssd300_het_vgg16_full')
    result = count_config(cfg.model, input_shape(cfg))
    assert saved(result) > 0.63
    assert round(result.total('dense_macs') / 1e9, 1) == 34.4
    backbone_only = load('ssd300_het_vgg16')
    result = count_config(backbone_only.model, (300, 300))
    assert round(saved(result), 2) == 0.57


def test_dense_columns_are_those_of_p1():
    cfg = load('ssd300_het_vgg16_full').model
    het, dense = (count_config(c, (300, 300)) for c in (cfg, set_p(cfg, 1)))
    for what in ('macs', 'parameters'):
        assert het.total(f'dense_{what}') == dense.total(what)
        assert dense.total(f'dense_{what}') == dense.total(what)
    assert dense.total('executed_macs') == dense.total('macs')
    assert not any(map(dense.heterogeneous, dense.components()))


def test_regions_are_the_configured_number(faster_rcnn):
    assert faster_rcnn.regions == dict(bbox=1000)
    # Shared2FC: 256 * 7 * 7 -> 1024 -> 1024 -> 81 and 4 * 80
    one = 256 * 49 * 1024 + 1024 * 1024 + 1024 * (81 + 320)
    assert faster_rcnn.total('macs', ['RoI head']) == 1000 * one
    cfg = load('faster_rcnn_het_r50_full').model
    cfg.test_cfg.rpn.max_per_img = 7
    result = count_config(cfg, (64, 64))
    assert result.total('macs', ['RoI head']) == 7 * one


def test_masks_and_transposed_convolutions():
    cfg = load('mask_rcnn_het_r50_full').model
    result = count_config(cfg, (64, 64))
    assert result.regions == dict(bbox=1000, mask=100)
    costs = {cost.name: cost for cost in result.layers}
    upsample = costs['roi_head.mask_head.upsample']
    assert upsample.macs == 100 * 14 * 14 * 256 * 256 * 4
    assert not result.uncounted


def test_cascade_counts_every_stage():
    name = 'mmdet::cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py'
    cfg = Config.fromstring(f"_base_ = '{name}'", '.py')
    result = count_config(cfg.model, (64, 64))
    heads = {cost.name: cost.macs for cost in result.layers}
    for stage in range(3):
        macs = heads[f'roi_head.bbox_head.{stage}.fc_cls']
        assert macs == 1000 * 1024 * 81
    assert not result.uncounted


@pytest.mark.parametrize('name', ['retinanet_het_r50_full', 'ssd300_het_vgg16_full'])
def test_executed_is_what_mmengine_counts(name):
    """Of convolutions: what else it counts is not counted here."""
    size = (300, 300) if 'ssd' in name else (64, 64)
    cfg = load(name).model
    cfg.backbone.init_cfg = None
    model = build_detector(cfg)
    model.eval()
    analyzer = FlopAnalyzer(Forward(model), (torch.zeros(1, 3, *size),))
    analyzer.unsupported_ops_warnings(False)
    counted = analyzer.by_operator()['conv']
    assert count_config(cfg, size).total('executed_macs') == counted


class Forward(nn.Module):
    """The network alone, its outputs in one tuple that can be traced."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, image):
        outputs = self.model.bbox_head(self.model.extract_feat(image))
        return tuple(tensor for level in outputs for tensor in level)


def test_parameters_are_all_there(faster_rcnn):
    model = build_detector(load('faster_rcnn_het_r50_full').model)
    total = sum(p.numel() for p in model.parameters())
    assert faster_rcnn.total('parameters') == total
    dense = build_detector(set_p(load('faster_rcnn_het_r50_full').model, 1))
    total = sum(p.numel() for p in dense.parameters())
    assert faster_rcnn.total('dense_parameters') == total


def test_a_layer_that_runs_per_level_is_counted_per_level():
    cfg = load('retinanet_het_r50').model
    result = count_config(cfg, (128, 128))
    costs = {cost.name: cost for cost in result.layers}
    pixels = 16**2 + 8**2 + 4**2 + 2**2 + 1
    assert costs['bbox_head.retina_reg'].calls == 5
    assert costs['bbox_head.retina_reg'].macs == pixels * 256 * 36 * 9


class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = HetConv2d(4, 4, 3, p=2, bias=False)
        self.idle = nn.Conv2d(4, 4, 3)
        self.table = nn.Embedding(3, 5)
        self.norm = nn.BatchNorm2d(4)
        self.up = nn.ConvTranspose2d(3, 4, 2, 2)

    def forward(self, image):
        return self.norm(self.conv(self.up(image)))


def test_what_is_not_counted_is_named():
    result = count_complexity(Odd(), (5, 6))
    assert result.uncounted == ['table', 'idle']
    assert result.components() == ['other']
    assert result.total('macs') == (5 * 6 * 3 * 4 * 4 + 8 * 10 * 4 * (2 * 9 + 2))
    assert result.other_parameters == dict(other=15 + 8)


def test_the_cpu_where_the_meta_device_lacks_an_operation():
    """Deformable convolution: its own weights are named as not counted."""
    name = 'mmdet::dcnv2/faster-rcnn_r50-mdconv-c3-c5_fpn_1x_coco.py'
    cfg = Config.fromstring(f"_base_ = '{name}'", '.py').model
    result = count_config(cfg, (64, 64))
    assert 'backbone.layer2.0.conv2' in result.uncounted
    assert result.total('macs', ['neck']) > 0


def test_input_shape():
    assert input_shape(load('faster_rcnn_het_r50_voc')) == (608, 1024)
    assert input_shape(load('ssd512_het_vgg16')) == (512, 512)
    cfg = load('ssd512_het_vgg16')
    cfg.test_dataloader.dataset.pipeline = []
    with pytest.raises(ValueError, match='has no Resize with one scale'):
        input_shape(cfg)
