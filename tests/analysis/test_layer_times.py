"""Milliseconds of layers inside a deployed detector."""

import torch
from mmengine.config import Config

from mmdet_hetconv.analysis.config import build_detector
from mmdet_hetconv.analysis.layer_times import layer_times
from mmdet_hetconv.deploy import switch_to_deploy
from mmdet_hetconv.layers.cost import CONVOLUTIONS
from mmdet_hetconv.models import set_p
from tests import tiny


def test_layers_take_a_part_of_the_whole(tmp_path):
    cfg = Config.fromfile(tiny.write_config(tmp_path / 'tiny.py'))
    deployed = {p: switch_to_deploy(build_detector(set_p(cfg.model, p)).eval()) for p in (1, 4)}
    before = [len(m._forward_hooks) for model in deployed.values() for m in model.modules()]
    layers, totals = layer_times(deployed, torch.randn(1, 3, 64, 96))
    trained = dict(build_detector(cfg.model).named_modules())
    assert all(isinstance(trained[name], CONVOLUTIONS) for name in layers)
    assert 'backbone.layer1.0.conv2' in layers
    # Heads on regions do not run.
    assert not any(name.startswith('roi_head') for name in layers)
    for p in (1, 4):
        assert all(by_p[p] > 0 for by_p in layers.values())
        assert sum(by_p[p] for by_p in layers.values()) < totals[p] * 1.5
    after = [len(m._forward_hooks) for model in deployed.values() for m in model.modules()]
    assert after == before
