"""Training steps of a small detector: what is compared, and the rows."""

import csv
import importlib
import sys
from pathlib import Path

import pytest
import torch

from mmdet_hetconv.layers import HetConv2d
from mmdet_hetconv.workflow.config.configs import read_config
from tests import tiny

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize('channels', [3, 1])
def test_rows(tmp_path, monkeypatch, channels):
    monkeypatch.syspath_prepend(str(ROOT / 'benchmarks'))
    script = importlib.import_module('train_step')
    extra = f'\nmodel["backbone"]["in_channels"] = {channels}\n'
    config = tiny.write_config(tmp_path / 'tiny.py', extra)
    out = tmp_path / 'rows.csv'
    words = ('train_step.py', config, '--shape', 64, 96, '--rounds', 2)
    monkeypatch.setattr(sys, 'argv', [*map(str, words), '--out', str(out)])
    script.main()
    rows = list(csv.DictReader(out.open()))
    assert [(row['kind'], row['layout']) for row in rows] == [
        *(('dense', 'nchw'), ('het', 'nchw')),
        *(('dense', 'nhwc'), ('het', 'nhwc')),
    ]
    for dense, het in (rows[:2], rows[2:]):
        assert int(het['parameters']) < int(dense['parameters'])
        assert dense['gain'] == '1.00'
        assert float(dense['ms']) > 0 and float(dense['peak_mb']) > 0

    models = script.detectors(read_config(config))
    images = torch.randn(1, channels, 64, 96)
    for kind, model in models.items():
        step = script.Step(model, images, 'nhwc')
        step()
        layers = [m for m in model.modules() if isinstance(m, HetConv2d)]
        assert bool(layers) == (kind == 'het')
        assert all(p.grad is None for p in model.parameters())
        moved = step.optimizer.state
        trained = [p for p in step.model.parameters() if p in moved]
        assert len(trained) == len(list(step.model.parameters()))
