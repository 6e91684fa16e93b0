"""How many convolutions of stock components a conv_cfg makes heterogeneous.

The configs are those in mmdet's wheel.
"""

from pathlib import Path

import mmdet
import pytest
import torch
from mmcv.cnn.utils import fuse_conv_bn
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import nn

from benchmarks.stock_checks import shake_norms
from mmdet_hetconv.layers import HetConv2d
from mmdet_hetconv.layers.replace import find_convs

CONFIGS = Path(mmdet.__file__).parent / '.mim' / 'configs'
HET = dict(type='HetConv', p=4)

# config, component: heterogeneous layers, all convolutions
COUNTS = {
    ('faster_rcnn/faster-rcnn_r50_fpn_1x_coco', 'backbone'): (16, 53),
    ('retinanet/retinanet_r18_fpn_1x_coco', 'backbone'): (16, 20),
    ('yolox/yolox_s_8xb8-300e_coco', 'backbone'): (13, 35),
    ('yolo/yolov3_d53_8xb8-320-273e_coco', 'backbone'): (28, 52),
    # widths 36, 72, 144 of 18 ... 144
    ('hrnet/faster-rcnn_hrnetv2p-w18-1x_coco', 'backbone'): (168, 305),
    ('faster_rcnn/faster-rcnn_x101-32x4d_fpn_1x_coco', 'backbone'): (0, 104),
    ('regnet/faster-rcnn_regnetx-3.2GF_fpn_1x_coco', 'backbone'): (0, 80),
    ('ssd/ssdlite_mobilenetv2-scratch_8xb24-600e_coco', 'backbone'): (0, 52),
    ('faster_rcnn/faster-rcnn_r50_fpn_1x_coco', 'neck'): (4, 8),
    ('pafpn/faster-rcnn_r50_pafpn_1x_coco', 'neck'): (10, 14),
    ('ssd/ssd300_coco', 'neck'): (4, 8),
    ('ssd/ssd512_coco', 'neck'): (4, 10),
    ('retinanet/retinanet_r50_fpn_1x_coco', 'bbox_head'): (8, 10),
    ('fcos/fcos_r50-caffe_fpn_gn-head_1x_coco', 'bbox_head'): (8, 11),
    ('atss/atss_r50_fpn_1x_coco', 'bbox_head'): (8, 11),
    ('gfl/gfl_r50_fpn_1x_coco', 'bbox_head'): (8, 10),
    ('yolo/yolov3_d53_8xb8-320-273e_coco', 'bbox_head'): (3, 6),
    ('faster_rcnn/faster-rcnn_r50_fpn_1x_coco', 'roi_head.bbox_head'): (0, 0),
    ('gn/mask-rcnn_r50_fpn_gn-all_2x_coco', 'roi_head.bbox_head'): (4, 4),
    ('mask_rcnn/mask-rcnn_r50_fpn_1x_coco', 'roi_head.mask_head'): (4, 5),
}


def component_cfg(config: str, component: str) -> dict:
    cfg = Config.fromfile(CONFIGS / f'{config}.py').model
    test_cfg = cfg.get('test_cfg')
    for key in component.split('.'):
        cfg = cfg[key]
    cfg = cfg.copy()
    if component == 'bbox_head':
        cfg.update(test_cfg=test_cfg)
    if component == 'backbone':
        cfg.init_cfg = None  # pre-trained weights
    return cfg


def build(cfg: dict) -> nn.Module:
    init_default_scope('mmdet')
    return MODELS.build(cfg)


@pytest.mark.parametrize('where', COUNTS, ids=' '.join)
def test_number_of_heterogeneous_layers(where):
    model = build(dict(component_cfg(*where), conv_cfg=HET))
    convs = find_convs(model).values()
    het = [conv for conv in convs if isinstance(conv, HetConv2d)]
    assert (len(het), len(convs)) == COUNTS[where]


def test_res2net():
    """41 of 87, where a block's width allows four parts."""
    model = build(dict(type='Res2Net', depth=50, scales=4, base_width=26))
    convs = len(find_convs(model))
    switched = build(dict(type='Res2Net', depth=50, scales=4, base_width=26, conv_cfg=HET))
    het = [m for m in switched.modules() if isinstance(m, HetConv2d)]
    assert (len(het), convs) == (41, 87)


def inputs_for(component: str, cfg: dict):
    torch.manual_seed(0)
    if component == 'backbone':
        return torch.rand(2, 3, 64, 64)
    if component.startswith('roi_head'):
        return torch.rand(2, cfg['in_channels'], 7, 7)
    channels = cfg['in_channels']
    if isinstance(channels, int):
        return tuple(torch.rand(2, channels, 8, 8) for _ in range(5))
    size = 64 if len(channels) > 2 else 38
    return tuple(torch.rand(2, c, size >> i, size >> i) for i, c in enumerate(channels))


def tensors(outputs) -> list[torch.Tensor]:
    if isinstance(outputs, torch.Tensor):
        return [outputs]
    return [tensor for output in outputs for tensor in tensors(output)]


WITH_HET = [where for where, (layers, _) in COUNTS.items() if layers and '512' not in where[0]]


@pytest.mark.parametrize('where', WITH_HET, ids=' '.join)
def test_p1_dense_weights_gradients_and_fusion(where):
    cfg = component_cfg(*where)
    torch.manual_seed(0)
    dense = build(cfg)
    shake_norms(dense)
    dense.eval()
    inputs = inputs_for(where[1], cfg)

    same = build(dict(cfg, conv_cfg=dict(HET, p=1)))
    same.load_state_dict(dense.state_dict())
    same.eval()
    with torch.no_grad():
        expected = tensors(dense(inputs))
        for a, b in zip(expected, tensors(same(inputs))):
            torch.testing.assert_close(a, b)

    het = build(dict(cfg, conv_cfg=HET))
    het.load_state_dict(dense.state_dict())  # strict: no key is dropped
    outputs = tensors(het(inputs))
    assert [o.shape for o in outputs] == [e.shape for e in expected]
    sum(output.square().mean() for output in outputs).backward()
    for name, parameter in het.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name

    het.eval()
    with torch.no_grad():
        before = tensors(het(inputs))
        after = tensors(fuse_conv_bn(het)(inputs))
    for a, b in zip(before, after):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
