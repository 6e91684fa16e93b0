from pathlib import Path

import mmdet
import pytest
from mmengine.config import Config, ConfigDict

from mmdet_hetconv.analysis import build_detector
from mmdet_hetconv.layers import HetConv2d
from mmdet_hetconv.models import set_p, use_conv_cfg
from mmdet_hetconv.models.config import takes_conv_cfg

CONFIGS = Path(mmdet.__file__).parent / '.mim' / 'configs'
HET = dict(type='HetConv', p=4)


def stock(name: str) -> ConfigDict:
    return Config.fromfile(CONFIGS / f'{name}.py').model


def parts(model_cfg) -> dict[str, set[int]]:
    """Parts of the heterogeneous layers, by component."""
    found = {}
    for name, module in build_detector(model_cfg).named_modules():
        if isinstance(module, HetConv2d):
            found.setdefault(name.split('.')[0], set()).add(module.p)
    return found


def test_set_part_reaches_every_place():
    model_cfg = ConfigDict(
        type='FasterRCNN',
        backbone=dict(type='HetResNet', depth=18, p=(1, 4, 4, 8)),
        neck=dict(type='FPN', conv_cfg=dict(HET)),
        rpn_head=dict(type='HetRPNHead', in_channels=8),
        heads=[dict(type='FCNMaskHead', conv_cfg=dict(HET))],
        dense=dict(type='HetSSDHead', conv_cfg=None),
        rival=dict(conv_cfg=dict(type='GroupPointwiseConv', conv_groups=4)),
        rival_backbone=dict(type='HetVGG', conv_cfg=dict(type='DepthPointwiseConv')),
    )
    changed = set_p(model_cfg, 2)
    assert changed.backbone.p == 2
    assert changed.neck.conv_cfg.p == 2
    assert changed.rpn_head.conv_cfg == dict(type='HetConv', p=2)
    assert changed.heads[0].conv_cfg.p == 2
    assert changed.dense == model_cfg.dense
    assert changed.rival == model_cfg.rival
    assert changed.rival_backbone == model_cfg.rival_backbone
    assert model_cfg.backbone.p == (1, 4, 4, 8)  # untouched


def test_set_part_without_hetconv():
    with pytest.raises(ValueError, match='p=2: there is no HetConv'):
        set_p(dict(type='FasterRCNN', backbone=dict(type='ResNet')), 2)


def test_switch_config_leaves_one_dimensional_convolutions():
    model_cfg = stock('point_rend/point-rend_r50-caffe_fpn_ms-1x_coco')
    switched = use_conv_cfg(model_cfg, HET)
    assert switched.backbone.conv_cfg == HET
    assert 'conv_cfg' not in switched.roi_head.point_head


def test_switch_config_switches_a_whole_stock_detector():
    model_cfg = stock('faster_rcnn/faster-rcnn_r50_fpn_1x_coco')
    switched = use_conv_cfg(model_cfg, HET)
    assert switched.rpn_head.type == 'HetRPNHead'
    assert model_cfg.rpn_head.type == 'RPNHead'  # untouched
    assert parts(switched) == dict(backbone={4}, neck={4}, rpn_head={4})
    assert parts(set_p(switched, 8)) == dict(backbone={8}, neck={8}, rpn_head={8})


def test_switch_config_stands_in_for_ssd():
    switched = use_conv_cfg(stock('ssd/ssd300_coco'), HET)
    assert switched.backbone.type == 'HetSSDVGG'
    assert switched.bbox_head.type == 'HetSSDHead'
    assert parts(switched) == dict(backbone={4}, neck={4}, bbox_head={2, 4})


def test_switch_config_keeps_a_conv_cfg_that_is_there():
    model_cfg = stock('gn+ws/faster-rcnn_r50_fpn_gn-ws-all_1x_coco')
    switched = use_conv_cfg(model_cfg, HET)
    assert switched.backbone.conv_cfg.type == 'ConvWS'
    assert switched.rpn_head.conv_cfg == HET


def test_switch_config_leaves_deformable_convolutions():
    model_cfg = stock('dcn/faster-rcnn_r50-dconv-c3-c5_fpn_1x_coco')
    switched = use_conv_cfg(model_cfg, HET)
    assert switched.backbone == model_cfg.backbone
    assert switched.neck.conv_cfg == HET


def test_switch_config_without_a_place():
    with pytest.raises(ValueError, match='no component of the Thing takes'):
        use_conv_cfg(dict(type='Thing'), HET)


def test_takes_conv_cfg():
    class Plain:
        def __init__(self, depth):
            pass

    class Takes:
        def __init__(self, conv_cfg=None):
            pass

    class Passes(Takes):
        def __init__(self, depth, **kwargs):
            pass

    class Hides(Takes):
        def __init__(self, depth):
            pass

    class Inherits(Takes):
        pass

    found = [takes_conv_cfg(c) for c in (Plain, Takes, Passes, Hides, Inherits)]
    assert found == [False, True, True, False, True]
