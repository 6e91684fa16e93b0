import pytest
import torch
from mmdet.models.dense_heads import RPNHead, SSDHead
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope
from torch import nn

from mmdet_hetconv.layers import GroupPointwiseConv2d, HetConv2d
from mmdet_hetconv.models import HetRPNHead, HetSSDHead

SSD_ANCHORS = dict(
    type='SSDAnchorGenerator',
    scale_major=False,
    input_size=300,
    basesize_ratio_range=(0.15, 0.9),
    strides=[8, 16, 32, 64, 100, 300],
    ratios=[[2], [2, 3], [2, 3], [2, 3], [2], [2]],
)
SSD_CHANNELS = (32, 64, 32, 16, 16, 16)


def rpn_head(cls=HetRPNHead, **kwargs):
    init_default_scope('mmdet')
    torch.manual_seed(0)
    return cls(in_channels=16, feat_channels=16, **kwargs)


def ssd_head(cls=HetSSDHead, **kwargs):
    init_default_scope('mmdet')
    torch.manual_seed(0)
    kwargs = dict(in_channels=SSD_CHANNELS, anchor_generator=SSD_ANCHORS, **kwargs)
    return cls(**kwargs)


def maps_for(head) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(1)
    if isinstance(head, RPNHead):
        return tuple(torch.rand(1, 16, 32 >> i, 32 >> i) for i in range(5))
    sizes = (38, 19, 10, 5, 3, 1)
    return tuple(torch.rand(1, c, s, s) for c, s in zip(SSD_CHANNELS, sizes))


def het_layers(head) -> dict[str, int]:
    return {
        name: module.p for name, module in head.named_modules() if isinstance(module, HetConv2d)
    }


def assert_same(head, other):
    maps = maps_for(head)
    for these, those in zip(head(maps), other(maps), strict=True):
        for a, b in zip(these, those, strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    'build,stock', [(rpn_head, RPNHead), (ssd_head, SSDHead)], ids=['RPN', 'SSD']
)
def test_against_the_stock_class(build, stock):
    dense = build(stock)
    for conv_cfg in (None, dict(type='HetConv', p=1)):
        same = build(conv_cfg=conv_cfg)
        assert not het_layers(same)
        same.load_state_dict(dense.state_dict())
        assert_same(same, dense)

    het = build()
    het.load_state_dict(dense.state_dict())  # strict: no key is dropped
    again = build()
    again.load_state_dict(het.state_dict())
    assert_same(again, het)
    sum(o.square().mean() for outs in het(maps_for(het)) for o in outs)
    outputs = [o for outs in het(maps_for(het)) for o in outs]
    sum(o.square().mean() for o in outputs).backward()
    for name, parameter in het.named_parameters():
        assert parameter.grad is not None, name


def test_rpn_switches_its_3x3_convolutions_only():
    assert het_layers(rpn_head()) == {'rpn_conv': 4}
    several = rpn_head(num_convs=2, conv_cfg=dict(type='HetConv', p=8))
    assert het_layers(several) == {'rpn_conv.0.conv': 8, 'rpn_conv.1.conv': 8}
    assert type(several.rpn_cls) is type(several.rpn_reg) is nn.Conv2d


def test_ssd_cuts_p_to_its_filters():
    """6 anchors and 81 classes are 486 = 2 * 243 filters."""
    layers = het_layers(ssd_head())
    assert len(layers) == 12
    assert [layers[f'cls_convs.{i}.0'] for i in range(6)] == [4, 2, 2, 2, 4, 4]
    assert {layers[f'reg_convs.{i}.0'] for i in range(6)} == {4}


def test_ssd_leaves_depthwise_pairs():
    with pytest.raises(ValueError, match='nothing was converted'):
        ssd_head(use_depthwise=True, act_cfg=dict(type='ReLU'))
    head = ssd_head(use_depthwise=True, act_cfg=dict(type='ReLU'), conv_cfg=None)
    assert not het_layers(head)


@pytest.mark.parametrize('build', [rpn_head, ssd_head])
def test_rivals(build):
    head = build(conv_cfg=dict(type='DepthPointwiseConv'))
    rivals = [m for m in head.modules() if isinstance(m, GroupPointwiseConv2d)]
    assert len(rivals) == len(het_layers(build()))


@pytest.mark.parametrize('build', [rpn_head, ssd_head])
def test_stock_initialisation_reaches_both_branches(build):
    head = build()
    head.init_weights()
    for module in head.modules():
        if isinstance(module, HetConv2d):
            assert module.grouped.weight.std() > 0
            assert module.pointwise.weight.std() > 0
            assert not module.grouped.bias.any()


def test_ssd_predicts_where_the_stock_class_cannot():
    """mmdetection #11063: prediction reads loss_cls, SSDHead has none."""
    head = ssd_head(
        bbox_coder=dict(type='DeltaXYWHBBoxCoder'),
        test_cfg=ConfigDict(
            nms_pre=100,
            nms=dict(type='nms', iou_threshold=0.45),
            min_bbox_size=0,
            score_thr=0.0,
            max_per_img=20,
        ),
    )
    metas = [dict(img_shape=(300, 300), scale_factor=(1.0, 1.0))]
    with torch.no_grad():
        found = head.predict_by_feat(*head(maps_for(head)), batch_img_metas=metas)
    assert len(found[0]) == 20


def test_registered():
    init_default_scope('mmdet')
    for cls in (HetRPNHead, HetSSDHead):
        assert MODELS.get(cls.__name__) is cls


@pytest.mark.parametrize('build', [rpn_head, ssd_head])
def test_bad_input(build):
    with pytest.raises(ValueError, match="nothing was converted.*'p': 7"):
        build(conv_cfg=dict(type='HetConv', p=7))
    with pytest.raises(ValueError, match='integer >= 1, got p=0'):
        build(conv_cfg=dict(type='HetConv', p=0))
