"""The detection script on drawn data: rows, resuming, and true metrics."""

import csv
import gc
import importlib
import sys
from pathlib import Path

import pytest
import torch
from mmdet.utils import register_all_modules
from mmengine.logging import MessageHub, MMLogger
from mmengine.optim import build_optim_wrapper
from mmengine.runner import EpochBasedTrainLoop
from mmengine.structures import InstanceData
from mmengine.visualization import Visualizer

from mmdet_hetconv.analysis.config import build_detector, count_config
from mmdet_hetconv.kernels import Plan
from mmdet_hetconv.layers import HetConv2d
from mmdet_hetconv.layers.group_pointwise import GroupPointwiseConv2d
from mmdet_hetconv.workflow.checkpoints.checkpoint import read_checkpoint
from mmdet_hetconv.workflow.evaluation import evaluate

ROOT = Path(__file__).parents[2]
SMALL = ('--reduced', '--image', 80, 64, '--workers', 0, '--batch-size', 4)
TRAINED = 8  # images


@pytest.fixture(autouse=True)
def fresh_process():
    """What mmengine keeps from one Runner to the next is set aside."""
    register_all_modules(init_default_scope=True)
    gc.freeze()
    yield
    gc.unfreeze()
    for kind in (MMLogger, MessageHub, Visualizer):
        kind._instance_dict.clear()


@pytest.fixture
def script(monkeypatch):
    """Imports a script as Python does when it is run."""
    monkeypatch.syspath_prepend(str(ROOT / 'benchmarks'))
    monkeypatch.syspath_prepend(str(ROOT / 'tools' / 'demo'))
    return importlib.import_module


@pytest.fixture
def shapes(script, tmp_path):
    """The same drawn images in coco/ and voc/."""
    script('make_shapes').make_data_set(tmp_path / 'data', TRAINED, 4, 0)
    return tmp_path / 'data'


@pytest.fixture
def timed_run(script, shapes, monkeypatch):
    """Runs the script; the rows that it has written."""
    out = shapes / 'rows.csv'

    def start(*words):
        words = ('--data-root', shapes / 'voc', *SMALL, *words)
        words += ('--work-dir', shapes / 'work', '--out', out, '--rounds', 1)
        monkeypatch.setattr(sys, 'argv', ['detection.py', *map(str, words)])
        script('detection').main()
        return list(csv.DictReader(out.open()))

    return start


@pytest.fixture
def run(timed_run, script, monkeypatch):
    """The same without the timing of deployed detectors, which takes longest."""
    monkeypatch.setattr(
        script('detection'), 'latencies', lambda configs, _: dict.fromkeys(configs, 1)
    )
    return timed_run


def make(script, root, conv_cfg=None, detector='faster_rcnn_r18', **kwargs):
    setting = dict(
        detector=detector,
        data_root=str(root),
        where='full',
        reduced=False,
        image=None,
        batch_size=4,
        workers=0,
    )
    setting = script('detection_configs').Setting(**setting | kwargs)
    return setting.config(conv_cfg, epochs=2, rate=1e-3, seed=0)


def test_rows_of_trainings_and_conversions(run, monkeypatch):
    monkeypatch.setattr(
        'mmdet_hetconv.convert.calibration.calibrate.wanted_positions', lambda layer: 500
    )
    words = ('--epochs', 1, '--conv', 'dense', 'het', '--p', 4)
    rows = run(*words)
    assert [row['conv'] for row in rows] == ['dense', 'het4']
    assert int(rows[0]['macs']) > int(rows[1]['macs'])
    assert int(rows[0]['parameters']) > int(rows[1]['parameters'])
    assert {row['data'] for row in rows} == {'voc'}
    words += ('--convert', 4, '--calib', 4, '--ways', 'projected', 'permuted')
    assert rows == run(*words)[:2]
    rows = run(*words)[2:]  # the second time, none is added
    found = [(r['conv'], r['start'], r['tuned_epochs']) for r in rows]
    ways = ('projected', 'permuted')
    expected = [('het4', way, tuned) for way in ways for tuned in '01']
    assert found == [*expected, ('dense', 'dense', '1')]
    for row in rows:
        assert 0 <= float(row['mAP']) <= float(row['mAP_50']) <= 100
        assert 'circle=' in row['mAP_by_class']
        assert float(row['lr']) == 1e-3
        tuned = row['tuned_epochs'] > '0'
        assert row['tuned_lr'] == ('0.0003' if tuned else '')
        assert row['calib'] == ('4' if row['start'] == 'permuted' else '')


def test_a_network_is_timed_once(timed_run, script, shapes, monkeypatch):
    run = timed_run
    monkeypatch.setattr(EpochBasedTrainLoop, 'run_iter', learn_nothing)
    # Which kernels are fastest is not asked here.
    measures = script('detection_measures')
    monkeypatch.setattr(measures, 'Plan', lambda *_, **__: Plan(frozen=True))

    def times():
        with (shapes / 'rows_latency.csv').open() as file:
            return list(csv.DictReader(file))

    words = ('--epochs', 1, '--conv', 'dense')
    run(*words)
    (dense,) = times()
    assert float(dense['latency_ms']) > 0
    run(*words, '--lr', 2e-3, '--lr-by-density')
    assert times() == [dense]
    run(*words, 'het', '--p', 4)
    assert times()[0] == dense
    assert [row['conv'] for row in times()] == ['dense', 'het4']


def test_a_killed_training_goes_on_from_its_last_epoch(run, shapes, monkeypatch):
    words = ('--epochs', 2, '--conv', 'dense')
    run_epoch = EpochBasedTrainLoop.run_epoch

    def die_in_the_second(loop):
        if loop.epoch == 1:
            raise KeyboardInterrupt
        run_epoch(loop)

    with monkeypatch.context() as patch:
        patch.setattr(EpochBasedTrainLoop, 'run_epoch', die_in_the_second)
        with pytest.raises(KeyboardInterrupt):
            run(*words)
    assert not (shapes / 'rows.csv').exists()
    epochs = []

    def count(loop):
        epochs.append(loop.epoch)
        run_epoch(loop)

    with monkeypatch.context() as patch:
        patch.setattr(EpochBasedTrainLoop, 'run_epoch', count)
        rows = run(*words)
    assert epochs == [1] and len(rows) == 1
    (last,) = (shapes / 'work').rglob('epoch_2.pth')
    times = read_checkpoint(last)['message_hub']['log_scalars']['train/time']
    assert len(times.data[0]) == 2 * TRAINED // 4


def learn_nothing(loop, idx, batch):
    loop._iter += 1


def test_hetconv_learns_by_density(run, script, shapes, monkeypatch):
    het = dict(type='HetConv', p=4)
    for by_density, factor in ((False, 1), (True, 3)):
        cfg = make(script, shapes / 'voc', het, lr_by_density=by_density)
        model = build_detector(cfg.model)
        wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
        layers = [m for m in model.modules() if isinstance(m, HetConv2d)]
        kernels = {id(layer.grouped.weight) for layer in layers}
        rates = [
            group['lr']
            for group in wrapper.optimizer.param_groups
            if kernels & set(map(id, group['params']))
        ]
        assert rates and rates == pytest.approx([factor * 1e-3] * len(rates))
    monkeypatch.setattr(EpochBasedTrainLoop, 'run_iter', learn_nothing)
    words = ('--epochs', 1, '--conv', 'dense', 'het', '--p', 4)
    rows = run(*words, '--lr-by-density')
    assert [row['lr_by_density'] for row in rows] == ['True'] * 2
    plain = run(*words)[2:]
    assert [row['lr_by_density'] for row in plain] == ['False'] * 2
    epochs = [path.parent.name for path in (shapes / 'work').rglob('*.pth')]
    assert sorted(epochs) == ['dense_0', 'het4_full_0', 'het4_full_density_0']


def test_dense_is_trained_once_for_every_where(run, monkeypatch):
    monkeypatch.setattr(EpochBasedTrainLoop, 'run_iter', learn_nothing)
    words = ('--epochs', 1, '--conv', 'dense')
    run(*words)

    def refuse(loop):
        raise AssertionError('trained again')

    monkeypatch.setattr(EpochBasedTrainLoop, 'run_epoch', refuse)
    rows = run(*words, '--where', 'backbone+neck')
    assert [row['where'] for row in rows] == ['full', 'backbone+neck']
    assert rows[0]['mAP'] == rows[1]['mAP']


@pytest.mark.parametrize(
    'detector, reduced', [('faster_rcnn_r18', False), ('ssd300', False), ('ssd300', True)]
)
@pytest.mark.parametrize(
    'conv_cfg, layer',
    [
        (dict(type='HetConv', p=8), HetConv2d),
        (dict(type='GroupPointwiseConv', conv_groups=4), GroupPointwiseConv2d),
        (dict(type='DepthPointwiseConv'), GroupPointwiseConv2d),
    ],
)
def test_every_convolution_takes_the_same_places(
    script, shapes, detector, reduced, conv_cfg, layer
):
    def build(conv_cfg):
        root = shapes / 'coco'
        cfg = make(script, root, conv_cfg, detector, reduced=reduced)
        return cfg.model, build_detector(cfg.model)

    def layers(model, kind):
        return {n for n, m in model.named_modules() if isinstance(m, kind)}

    model_cfg, model = build(conv_cfg)
    _, het4 = build(dict(type='HetConv', p=4))
    dense_cfg, dense = build(None)
    places = layers(model, layer)
    assert places and places == layers(het4, HetConv2d)
    assert not layers(dense, (HetConv2d, GroupPointwiseConv2d))
    costs = count_config(model_cfg, (300, 300))
    dense_costs = count_config(dense_cfg, (300, 300))
    assert costs.total('dense_macs') == dense_costs.total('macs')


@pytest.mark.parametrize('detector', ['faster_rcnn_r18', 'ssd300'])
@pytest.mark.parametrize(
    'where, parts',
    [
        ('full', {'backbone', 'neck', 'head'}),
        ('backbone', {'backbone'}),
        ('backbone+neck', {'backbone', 'neck'}),
        ('backbone+head', {'backbone', 'head'}),
    ],
)
def test_where_names_the_parts_that_are_exchanged(script, shapes, detector, where, parts):
    het = dict(type='HetConv', p=4)
    root = shapes / 'coco'
    cfg = make(script, root, het, detector, reduced=True, where=where)
    found = {
        name.split('.')[0]
        for name, module in build_detector(cfg.model).named_modules()
        if isinstance(module, HetConv2d)
    }
    head = 'bbox_head' if detector == 'ssd300' else 'rpn_head'
    assert found == {head if part == 'head' else part for part in parts}


class Oracle(torch.nn.Module):
    """Finds a part of the true boxes, and one that is not there."""

    def __init__(self, share):
        super().__init__()
        self.share = share
        self.seen = 0

    def test_step(self, batch):
        for sample in batch['data_samples']:
            truth = sample.gt_instances
            boxes = torch.as_tensor(getattr(truth.bboxes, 'tensor', truth.bboxes))
            number = torch.arange(len(boxes)) + self.seen
            self.seen += len(boxes)
            found = number % 10 < 10 * self.share
            wrong = torch.tensor([[0.0, 0.0, 5.0, 5.0]])
            boxes = torch.cat([boxes[found].float(), wrong])
            scores = torch.ones(len(boxes))
            scores[-1] = 0.1
            labels = torch.cat([truth.labels[found], torch.tensor([0])])
            sample.pred_instances = InstanceData(bboxes=boxes, scores=scores, labels=labels)
        return batch['data_samples']


@pytest.mark.parametrize('share', [1.0, 0.5])
def test_both_layouts_are_evaluated_alike(script, shapes, share):
    columns = {}
    for layout in ('coco', 'voc'):
        cfg = make(script, shapes / layout)
        metrics = evaluate(cfg, Oracle(share))
        measures = script('detection_measures')
        columns[layout] = measures.metric_columns(metrics)
    coco, voc = columns['coco'], columns['voc']
    assert coco['voc_mAP_50'] == '' and voc['voc_mAP_50'] != ''
    for name in ('mAP', 'mAP_50', 'mAP_by_class'):
        assert coco[name] == voc[name]
    if share == 1.0:
        assert voc['mAP'] == voc['mAP_50'] == voc['voc_mAP_50'] == '100.0'
    else:
        assert 0 < float(voc['mAP']) < 100


def test_reduced_ssd_has_the_maps_of_ssd300(script, shapes):
    maps = []
    for reduced in (False, True):
        cfg = make(script, shapes / 'coco', None, 'ssd300', reduced=reduced)
        model = build_detector(cfg.model).eval()
        found = model.extract_feat(torch.zeros(1, 3, 300, 300))
        maps.append([tuple(f.shape[2:]) for f in found])
    assert maps[0] == maps[1] and len(maps[0]) == 6
