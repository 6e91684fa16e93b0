"""Timing of whole detectors: what is compared, and what is reported."""

import csv

import pytest
import torch
from mmengine.config import Config

from mmdet_hetconv.analysis import count_complexity, latency
from mmdet_hetconv.analysis.config import build_detector
from mmdet_hetconv.convert import make_dense
from mmdet_hetconv.deploy import switch_to_deploy
from mmdet_hetconv.export.onnx import RawOutputs, export_onnx
from mmdet_hetconv.export.runtimes import BACKENDS, load_graph, quantize_graph
from mmdet_hetconv.layers import HetConv2d
from tests import tiny


def test_dense_copy_computes_the_same(tmp_path):
    cfg = Config.fromfile(tiny.write_config(tmp_path / 'tiny.py'))
    het = build_detector(cfg.model).eval()
    dense = make_dense(het)
    assert any(isinstance(m, HetConv2d) for m in het.modules())
    assert not any(isinstance(m, HetConv2d) for m in dense.modules())
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for a, b in zip(dense.extract_feat(images), het.extract_feat(images)):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_four_forms_and_their_files(tmp_path, bfloat16_anywhere, capsys, monkeypatch):
    said = []
    monkeypatch.setattr(latency, 'print_log', lambda line, _: said.append(line))
    cfg = Config.fromfile(tiny.write_config(tmp_path / 'tiny.py'))
    timings = latency.benchmark_config(cfg, 2, (64, 96), 2, precisions=['fp32', 'bf16', 'int8'])
    bars = capsys.readouterr().err
    for step in ('Deploying forms', 'Timing kernels, het deployed int8', 'Timing forms'):
        assert step in bars
    (line,) = said
    assert all(f'{kind} deployed int8 ' in line for kind in ('dense', 'het'))
    forms = ['dense', 'het', 'dense deployed', 'het deployed']
    others = [f'{kind} deployed {p}' for p in ('bf16', 'int8') for kind in ('dense', 'het')]
    assert [t.form for t in timings] == [*forms, *others]
    dense, het, _, deployed, *_ = timings
    fastest = min(t.ms for t in timings if t.form.startswith('dense'))
    for timing in timings:
        assert abs(timing.gain_best - fastest / timing.ms) < 0.02 * timing.gain_best
    assert dense.gain == 1.0
    assert abs(het.gain - dense.ms / het.ms) < 0.02 * het.gain
    costs = count_complexity(build_detector(cfg.model), (64, 96))
    parts = [part for part in costs.components() if part != 'RoI head']
    want = costs.total('macs', parts) / costs.total('dense_macs', parts)
    share = deployed.efficiency / deployed.gain
    assert abs(share - want) < 0.01
    assert het.weights_mb < dense.weights_mb

    latency.write_csv(timings, tmp_path / 'out' / 'a.csv', 'cpu')
    with open(tmp_path / 'out' / 'a.csv', newline='') as file:
        rows = list(csv.DictReader(file))
    assert [row['form'] for row in rows] == [t.form for t in timings]
    assert float(rows[1]['ms']) == het.ms
    assert {(row['image'], row['whole']) for row in rows} == {('64x96', 'False')}
    assert all(row['machine'].startswith('CPU') for row in rows)
    latency.plot(timings, tmp_path / 'out' / 'a.png')
    assert (tmp_path / 'out' / 'a.png').read_bytes()[:4] == b'\x89PNG'


def test_other_backends(tmp_path, bfloat16_anywhere):
    for package in ('openvino', 'onnxscript', 'onnxruntime'):
        pytest.importorskip(package)
    cfg = Config.fromfile(tiny.write_config(tmp_path / 'tiny.py'))
    timings = latency.benchmark_config(
        cfg, 1, (64, 96), 2, precisions=['fp32', 'bf16', 'int8'], backends=[*BACKENDS]
    )
    found = {t.form for t in timings if 'onnx' in t.form or 'openvino' in t.form}
    forms = ['onnxruntime', 'onnxruntime int8', 'openvino', 'openvino bf16', 'openvino int8']
    assert found == {f'{kind} {form}' for kind in ('dense', 'het') for form in forms}
    with pytest.raises(ValueError, match='dense head only'):
        latency.benchmark_config(cfg, 1, (64, 96), 2, whole=True, backends=['openvino'])


@pytest.fixture(scope='module')
def graph(tmp_path_factory):
    """A detector, its graph, and the outputs' names."""
    pytest.importorskip('onnxscript')
    folder = tmp_path_factory.mktemp('graph')
    torch.manual_seed(0)
    cfg = Config.fromfile(tiny.write_config(folder / 'tiny.py'))
    model = switch_to_deploy(build_detector(cfg.model))
    names = export_onnx(model, (64, 96), folder / 'a.onnx')
    return model, folder / 'a.onnx', names


@pytest.mark.parametrize(
    'backend, precision, bound',
    [
        ('onnxruntime', 'fp32', 1e-4),
        ('openvino', 'fp32', 1e-4),
        ('openvino', 'bf16', 0.05),
        ('openvino', 'int8', 0.1),
        ('onnxruntime', 'int8', 0.1),
    ],
)
def test_a_graph_in_another_backend_computes_the_same(tmp_path, graph, backend, precision, bound):
    for package in (backend, 'onnxruntime'):
        pytest.importorskip(package)
    model, path, names = graph
    images = torch.randn(1, 3, 64, 96)
    if precision == 'int8':
        quantize_graph(path, [images.numpy()], tmp_path / 'int8.onnx')
        path = tmp_path / 'int8.onnx'
        assert [*tmp_path.iterdir()] == [path]
    for shape in (None, (1, 3, 64, 96)):
        compiled = load_graph(backend, path, precision, shape)
        assert compiled.names == names
        found = compiled.run(images.numpy())
        for mine, theirs in zip(found, RawOutputs(model)(images), strict=True):
            error = (torch.from_numpy(mine) - theirs).norm()
            assert error < bound * theirs.norm()
