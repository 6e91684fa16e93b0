"""Configs as the tools read them."""

from mmdet.registry import MODELS
from mmengine.registry import init_default_scope

from mmdet_hetconv.layers import HetConv2d
from mmdet_hetconv.workflow.config.configs import read_config


def test_the_head_of_a_stock_ssd_can_predict(tmp_path):
    """mmdet 3.3's SSDHead lacks loss_cls, which its prediction reads."""
    path = tmp_path / 'ssd.py'
    path.write_text("_base_ = 'mmdet::ssd/ssd300_coco.py'\nmodel = dict(backbone=dict(depth=16))\n")
    cfg = read_config(str(path))
    init_default_scope('mmdet')
    cfg.model.backbone.init_cfg = None
    head = MODELS.build(cfg.model.bbox_head)
    assert head.loss_cls is None
    assert not any(isinstance(module, HetConv2d) for module in head.modules())
    stock = read_config(str(path)).model.bbox_head
    stock.pop('conv_cfg')
    stock.type = 'SSDHead'
    assert head.state_dict().keys() == MODELS.build(stock).state_dict().keys()
