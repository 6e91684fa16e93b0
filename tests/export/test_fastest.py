"""The fastest runtime of a detector, and the graph that a checkpoint keeps for it."""

import copy
import dataclasses

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmdet_hetconv.comfort.show.inferencer import HetInferencer
from mmdet_hetconv.deploy import switch_to_deploy
from mmdet_hetconv.export import fastest
from mmdet_hetconv.export.fastest import OWN, StoredGraph, choose_runtime
from mmdet_hetconv.trace.examples import detect
from mmdet_hetconv.utils.errors import UserError
from mmdet_hetconv.workflow import deployment
from tests import tiny
from tests.deploy.test_fold import trained
from tests.deploy.test_tools import RETINANET, int8_argv, predictions
from tests.tools.entry import error_of, load_main

SIZE = (64, 96)


@pytest.fixture(autouse=True)
def runtimes():
    for package in ('onnxruntime', 'openvino', 'onnxscript'):
        pytest.importorskip(package)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A data set, a config and a trained checkpoint."""
    path = tmp_path_factory.mktemp('fastest')
    tiny.write_coco(path / 'coco')
    (path / 'config.py').write_text(RETINANET)
    init_default_scope('mmdet')
    cfg = Config.fromfile(path / 'config.py')
    cfg.model.bbox_head.num_classes = 2
    torch.manual_seed(0)
    model = trained(MODELS.build(cfg.model))
    meta = dict(dataset_meta=dict(classes=tiny.CLASSES))
    torch.save(dict(state_dict=model.state_dict(), meta=meta), path / 'trained.pth')
    return path


def build(folder):
    cfg = Config.fromfile(folder / 'config.py')
    cfg.model.bbox_head.num_classes = 2
    model = MODELS.build(cfg.model).eval()
    model.load_state_dict(torch.load(folder / 'trained.pth')['state_dict'])
    return model


def fastest_is(name, monkeypatch):
    """Times as if one runtime took 2 ms and all others 3 ms."""
    monkeypatch.setattr(
        fastest,
        'times_in_turns',
        lambda runs, *rest: {run: [2.0 if run == name else 3.0] for run in runs},
    )


@pytest.fixture
def exported_before(choice, monkeypatch):
    """Takes the graph of `choice` in place of exporting it again."""
    monkeypatch.setattr(
        fastest, 'export_onnx', lambda model, size, path: path.write_bytes(choice.graph.onnx)
    )


@pytest.fixture(scope='module')
def choice(folder):
    model = switch_to_deploy(build(folder))
    with pytest.MonkeyPatch.context() as patch:
        fastest_is('openvino', patch)
        return choose_runtime(model, model, SIZE, 'fp32')


def test_the_fastest_runtime_is_chosen(choice):
    assert choice.graph.backend == 'openvino'
    assert choice.ms == {'openvino': 2.0, OWN: 3.0, 'onnxruntime': 3.0}
    assert max(choice.differences.values()) < 1e-4
    told = str(choice)
    assert told.startswith('fastest in fp32 at 64 x 96: openvino, 2.00 ms, its outputs within ')
    assert told.endswith(f'; {OWN} 3.00 ms (1.50x); onnxruntime 3.00 ms (1.50x)')


@pytest.mark.parametrize('backend', ['onnxruntime', 'openvino'])
def test_a_stored_graph_detects_as_the_model(folder, choice, backend, tmp_path):
    stored = dataclasses.replace(choice.graph, backend=backend)
    torch.save(stored.state_dict(), tmp_path / 'graph.pth')
    read = StoredGraph.from_state_dict(torch.load(tmp_path / 'graph.pth', weights_only=True))
    assert read == stored
    model = build(folder)
    served = copy.deepcopy(model)
    read.serve(served)
    images = torch.randn(2, 3, 96, 64)
    for mine, theirs in zip(detect(served, images), detect(model, images), strict=True):
        assert len(theirs.pred_instances) == 20
        for key in ('scores', 'bboxes'):
            mine_values, values = mine.pred_instances[key], theirs.pred_instances[key]
            torch.testing.assert_close(mine_values, values, rtol=1e-3, atol=1e-2)


@pytest.mark.usefixtures('exported_before')
def test_runtimes_that_cannot_run_it_are_told(folder, monkeypatch):
    """One is not installed, and the graph of the other computes something else."""
    model = switch_to_deploy(build(folder))
    for value in model.bbox_head.retina_cls.state_dict().values():
        value.mul_(1.01)
    check = fastest.check_backend

    def without_openvino(name, precision):
        if name == 'openvino':
            raise ValueError('openvino, not installed: pip install openvino')
        check(name, precision)

    monkeypatch.setattr(fastest, 'check_backend', without_openvino)
    found = choose_runtime(model, model, SIZE, 'fp32')
    assert found.graph is None and list(found.ms) == [OWN]
    assert 'its outputs differ from float32 by 0.0099' in found.refused['onnxruntime']
    assert str(found).endswith('; not openvino: openvino, not installed: pip install openvino')


def test_graphs_that_are_not_read(choice, folder):
    state = choice.graph.state_dict()
    for changes, message in [
        (dict(version=2), 'stored by another version'),
        (dict(backend='os.system'), "no runtime is 'os.system' in 'fp32'"),
        (dict(backend='onnxruntime', precision='bf16'), "no runtime is 'onnxruntime' in 'bf16'"),
        (dict(onnx=b'bytes'), 'it is not a tensor of bytes'),
    ]:
        with pytest.raises(ValueError, match=message):
            StoredGraph.from_state_dict({**state, **changes})
    for backend in ('onnxruntime', 'openvino'):
        with pytest.raises(ValueError, match=f'{backend} cannot read it'):
            StoredGraph(backend, 'fp32', b'no graph').serve(build(folder))


def deploy_argv(folder, *flags):
    options = ('model.bbox_head.num_classes=2', 'test_dataloader.dataset.pipeline.1.scale=(64,48)')
    paths = (folder / 'config.py', folder / 'trained.pth', '--out', folder / 'fast.pth')
    return [str(word) for word in (*paths, '--backend', 'auto', *flags, '--cfg-options', *options)]


@pytest.mark.usefixtures('exported_before')
def test_a_deployed_checkpoint_runs_its_graph(folder, monkeypatch):
    """In tools/test.py and wherever HetInferencer loads it: infer.py, compare.py, load()."""
    fastest_is('onnxruntime', monkeypatch)
    told = []
    monkeypatch.setattr(deployment, 'announce', told.append)
    load_main('deploy')(deploy_argv(folder))
    assert told[0].startswith('fastest in fp32 at 64 x 64: onnxruntime, 2.00 ms')
    want = predictions(folder, 'trained.pth', 'plain')
    runs = []
    load = fastest.load_graph
    monkeypatch.setattr(
        fastest, 'load_graph', lambda name, *rest: runs.append(name) or load(name, *rest)
    )
    got = predictions(folder, 'fast.pth', 'fast', '--deploy')
    assert runs == ['onnxruntime']
    for mine, theirs in zip(got, want, strict=True):
        torch.testing.assert_close(mine['scores'], theirs['scores'], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(mine['bboxes'], theirs['bboxes'], rtol=1e-3, atol=1e-2)
    cfg = Config.fromfile(folder / 'config.py')
    inferencer = HetInferencer(cfg, str(folder / 'fast.pth'), deploy=True)
    assert inferencer.form == 'deployed (fp32) in onnxruntime'
    assert runs == ['onnxruntime'] * 2
    monkeypatch.setattr(
        'mmdet_hetconv.export.runtimes.find_spec',
        lambda name: None if name == 'onnxruntime' else object(),
    )
    with pytest.raises(UserError, match='fast.pth: its graph: onnxruntime, not installed'):
        HetInferencer(cfg, str(folder / 'fast.pth'), deploy=True)


@pytest.mark.usefixtures('exported_before')
def test_int8_of_a_graph(folder, monkeypatch):
    fastest_is('openvino', monkeypatch)
    told = []
    monkeypatch.setattr(deployment, 'announce', told.append)
    root = f'--data-root={folder / "coco"}'
    load_main('deploy')(int8_argv(folder, 'int8.pth', root, '--no-eval', '--backend=auto'))
    assert told[0].startswith(
        'fastest in int8 at 64 x 64: openvino, 2.00 ms, its outputs within 0.'
    )
    want = predictions(folder, 'trained.pth', 'plain_int8')
    got = predictions(folder, 'int8.pth', 'int8', '--deploy')
    for mine, theirs in zip(got, want, strict=True):
        torch.testing.assert_close(mine['scores'], theirs['scores'], rtol=0.1, atol=0.02)
        assert not torch.equal(mine['scores'], theirs['scores'])


def test_what_auto_refuses(folder):
    deploy = load_main('deploy')
    assert '--keep neck: --backend auto may' in error_of(
        deploy, *deploy_argv(folder, '--keep', 'neck')
    )
    content = torch.load(folder / 'trained.pth', weights_only=True)
    content |= {deployment.PLAN: [], deployment.PRECISION: 'int8'}
    torch.save(content, folder / 'int8_before.pth')
    argv = [word.replace('trained', 'int8_before') for word in deploy_argv(folder)]
    assert '--backend auto: checkpoint' in error_of(deploy, *argv)
