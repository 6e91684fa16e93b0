"""Deployed checkpoints and ONNX graphs, through the tools."""

import copy
import dataclasses
import pickle
import re
import shutil
import subprocess
import sys

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures.bbox import bbox_overlaps
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import nn

import mmdet_hetconv.workflow.end_to_end
from mmdet_hetconv.export.graph_detector import check_graph_detector, run_by_graph
from mmdet_hetconv.export.onnx import RawOutputs, export_onnx
from mmdet_hetconv.export.runtimes import load_graph, open_session
from mmdet_hetconv.trace.examples import detect
from mmdet_hetconv.workflow.deployment import deploy_model, plan_of
from tests import tiny
from tests.tools.conftest import forget, fresh_process  # noqa: F401
from tests.tools.entry import error_of, evaluate, load_main

from .test_fold import trained

RETINANET = """
_base_ = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'
custom_imports = dict(imports=['mmdet_hetconv'], allow_failed_imports=False)
het = dict(type='HetConv', p=4)
model = dict(
    backbone=dict(base_channels=16, init_cfg=None, conv_cfg=het),
    neck=dict(
        in_channels=[16, 32, 64, 128], out_channels=16, conv_cfg=het
    ),
    bbox_head=dict(
        in_channels=16, feat_channels=16, stacked_convs=1, conv_cfg=het
    ),
    test_cfg=dict(score_thr=0.0, max_per_img=20),
)
test_dataloader = dict(num_workers=0, persistent_workers=False)
randomness = dict(seed=7, deterministic=True)
"""


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A data set, a config and a checkpoint with batch norms that matter."""
    path = tmp_path_factory.mktemp('deploy')
    tiny.write_coco(path / 'coco')
    (path / 'config.py').write_text(RETINANET)
    cfg = Config.fromfile(path / 'config.py')
    init_default_scope('mmdet')
    cfg.model.bbox_head.num_classes = 2
    torch.manual_seed(0)
    model = trained(MODELS.build(cfg.model))
    meta = dict(dataset_meta=dict(classes=tiny.CLASSES))
    state = dict(state_dict=model.state_dict(), meta=meta)
    torch.save(state, path / 'trained.pth')
    load_main('deploy')(
        [
            str(path / 'config.py'),
            str(path / 'trained.pth'),
            f'--out={path / "deployed.pth"}',
            '--tune',
            '64',
            '64',
            '--cfg-options',
            'model.bbox_head.num_classes=2',
        ]
    )
    return path


def test_argv(folder, checkpoint, name, *flags):
    return [
        str(folder / 'config.py'),
        str(folder / checkpoint),
        f'--data-root={folder / "coco"}',
        f'--work-dir={folder / name}',
        *flags,
        f'--out={folder / name}.pkl',
        '--cfg-options',
        'test_dataloader.dataset.pipeline.1.scale=(64,48)',
    ]


test_argv.__test__ = False


def predictions(folder, checkpoint, name, *flags):
    evaluate(test_argv(folder, checkpoint, name, *flags))
    with open(folder / f'{name}.pkl', 'rb') as file:
        return [sample['pred_instances'] for sample in pickle.load(file)]


@pytest.fixture(scope='module')
def exported(folder):
    """Predictions by onnxruntime, and the graph that made them."""
    pytest.importorskip('onnxruntime')
    pytest.importorskip('onnxscript')
    flags = ('--backend', 'onnxruntime')
    got = predictions(folder, 'deployed.pth', 'onnx', *flags)
    forget()
    return got, folder / 'onnx' / 'deployed.onnx'


def test_deployed_and_exported_detect_the_same(folder, exported):
    want = predictions(folder, 'trained.pth', 'plain')
    ways = [
        exported[0],
        predictions(folder, 'trained.pth', 'switched', '--deploy'),
        predictions(folder, 'deployed.pth', 'deployed', '--deploy'),
    ]
    for got in ways:
        assert len(got) == len(want) == 3
        for mine, theirs in zip(got, want):
            assert len(mine['scores']) == 20
            torch.testing.assert_close(mine['scores'], theirs['scores'], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(mine['bboxes'], theirs['bboxes'], rtol=1e-3, atol=1e-2)


def test_deployed_checkpoint_holds_its_plan(folder):
    content = torch.load(folder / 'deployed.pth', weights_only=True)
    choices = content['hetconv_plan']
    assert choices
    assert {choice['reason'] for choice in choices} == {'timed'}
    assert content['meta']['dataset_meta']['classes'] == tiny.CLASSES
    assert not any('running_mean' in key for key in content['state_dict'])


def test_a_detection_of_the_tuned_size_times_nothing(folder):
    """Heads were tuned, too."""
    cfg = Config.fromfile(folder / 'config.py')
    cfg.model.bbox_head.num_classes = 2
    content = torch.load(folder / 'deployed.pth', weights_only=True)
    model = MODELS.build(cfg.model).eval()
    model = deploy_model(model, content, 'deployed.pth')
    plan = plan_of(model)
    tuned = len(plan.choices)
    (sample,) = detect(model, torch.randn(1, 3, 64, 64))
    assert len(sample.pred_instances) == 20
    assert plan.spent_s == 0
    assert len(plan.choices) == tuned


def test_the_precision_is_part_of_the_checkpoint(folder, bfloat16_anywhere):
    load_main('deploy')(
        [
            *(str(folder / 'config.py'), str(folder / 'trained.pth')),
            *('--out', str(folder / 'bf16.pth'), '--precision', 'bf16'),
            *('--cfg-options', 'model.bbox_head.num_classes=2'),
        ]
    )
    content = torch.load(folder / 'bf16.pth', weights_only=True)
    assert {v.dtype for v in content['state_dict'].values()} == {torch.float32}
    want = predictions(folder, 'trained.pth', 'plain_again')
    got = predictions(folder, 'bf16.pth', 'bf16', '--deploy')
    for mine, theirs in zip(got, want):
        assert not torch.equal(mine['scores'], theirs['scores'])
        torch.testing.assert_close(mine['scores'], theirs['scores'], rtol=0.05, atol=0.01)


def int8_argv(folder, out, *flags):
    return [
        *(str(folder / 'config.py'), str(folder / 'trained.pth')),
        *(f'--out={folder / out}', '--precision', 'int8', '--calib', '2', *flags),
        '--cfg-options',
        'model.bbox_head.num_classes=2',
        'test_dataloader.dataset.pipeline.1.scale=(64,48)',
    ]


def test_int8_is_part_of_the_checkpoint(folder, capsys):
    root = f'--data-root={folder / "coco"}'
    load_main('deploy')(int8_argv(folder, 'int8.pth', root, '--keep', 'backbone.conv1'))
    printed = capsys.readouterr().out
    assert 'backbone.layer1.0.conv1' in printed
    rows = re.findall(r'^(fp32|bf16|int8) +(\S+)', printed, re.MULTILINE)
    assert [precision for precision, _ in rows] == ['fp32', 'int8']
    assert all(0 <= float(precision_of_boxes) <= 1 for _, precision_of_boxes in rows)
    content = torch.load(folder / 'int8.pth', weights_only=True)
    assert content['hetconv_precision'] == 'int8'
    levels = content['hetconv_int8']
    assert levels['backbone.conv1'] is None
    assert levels['backbone.layer1.0.conv1']['output'] is not None
    want = predictions(folder, 'trained.pth', 'plain_int8')
    got = predictions(folder, 'int8.pth', 'int8', '--deploy')
    for mine, theirs in zip(got, want):
        assert not torch.equal(mine['scores'], theirs['scores'])
        torch.testing.assert_close(mine['scores'], theirs['scores'], rtol=0.1, atol=0.02)


def test_what_int8_needs(folder, tmp_path):
    deploy = load_main('deploy')
    (tmp_path / 'none').mkdir()
    empty = f'--data-root={tmp_path / "none"}'
    assert 'has no images to calibrate with' in error_of(deploy, *int8_argv(folder, 'a.pth', empty))
    root = f'--data-root={folder / "coco"}'
    argv = int8_argv(folder, 'a.pth', root, '--no-eval', '--keep', 'nothing')
    assert "keep: 'nothing' is none of" in error_of(deploy, *argv)
    (tmp_path / 'none' / 'a.jpg').write_bytes(b'no image')
    assert 'a.jpg' in error_of(deploy, *int8_argv(folder, 'a.pth', empty))
    assert not (folder / 'a.pth').exists()


def test_levels_that_are_not_the_models(folder, tmp_path):
    load_main('deploy')(int8_argv(folder, 'b.pth', f'--data-root={folder / "coco"}', '--no-eval'))
    content = torch.load(folder / 'b.pth', weights_only=True)
    export = load_main('export_onnx')
    message = error_of(export, *map(str, (folder / 'config.py', folder / 'b.pth', '--out=a.onnx')))
    assert 'computes in int8' in message
    content['hetconv_int8']['neck'] = None
    torch.save(content, folder / 'b.pth')
    message = error_of(evaluate, *test_argv(folder, 'b.pth', 'b', '--deploy'))
    assert "its levels of int8: 'neck' is no convolution" in message


def test_a_form_of_another_version_is_refused(folder, tmp_path):
    content = torch.load(folder / 'deployed.pth', weights_only=True)
    del content['hetconv_form']
    torch.save(content, folder / 'old.pth')
    message = error_of(evaluate, *test_argv(folder, 'old.pth', 'old', '--deploy'))
    assert 'old.pth has an inference form of another version' in message


def test_deployed_checkpoint_needs_the_flag(folder):
    argv = test_argv(folder, 'deployed.pth', 'wrong')
    assert '--deploy' in error_of(evaluate, *argv)


def test_a_graph_serves_a_two_stage_detector(tmp_path):
    for package in ('onnxruntime', 'openvino', 'onnxscript'):
        pytest.importorskip(package)
    config = tiny.write_config(tmp_path / 'two.py')
    init_default_scope('mmdet')
    torch.manual_seed(0)
    model = MODELS.build(Config.fromfile(config).model).eval()
    export_onnx(model, (64, 96), tmp_path / 'two.onnx')
    images = torch.randn(2, 3, 96, 64)
    want = detect(model, images)
    for backend in ('onnxruntime', 'openvino'):
        served = copy.deepcopy(model)
        run_by_graph(served, load_graph(backend, tmp_path / 'two.onnx', 'fp32'))
        for mine, theirs in zip(detect(served, images), want, strict=True):
            assert len(theirs.pred_instances) > 10
            for key in ('scores', 'bboxes'):
                mine_values, values = mine.pred_instances[key], theirs.pred_instances[key]
                torch.testing.assert_close(mine_values, values, rtol=1e-3, atol=1e-2)


def test_what_a_graph_does_not_serve():
    model = nn.Module()
    with pytest.raises(ValueError, match='Module is neither a single-stage'):
        check_graph_detector(model)
    model.bbox_head = model.mask_head = nn.Identity()
    with pytest.raises(ValueError, match='Module is neither a single-stage'):
        run_by_graph(model, None)


@pytest.mark.parametrize(
    'flags',
    [
        ('--backend', 'openvino', '--precision', 'int8', '--calib', '2'),
        ('--deploy', '--precision', 'int8', '--calib', '2'),
    ],
)
def test_int8_detects_about_the_same(folder, flags):
    if '--backend' in flags:
        for package in (flags[1], 'onnxscript', 'onnxruntime'):
            pytest.importorskip(package)
    want = predictions(folder, 'trained.pth', 'plain_again')
    got = predictions(folder, 'trained.pth', '_'.join(flags).replace('-', ''), *flags)
    for mine, theirs in zip(got, want, strict=True):
        torch.testing.assert_close(mine['scores'], theirs['scores'], rtol=0.1, atol=0.02)
        assert not torch.equal(mine['scores'], theirs['scores'])


def test_a_precision_that_is_not_to_be_had(folder, bfloat16_anywhere):
    argv = test_argv(folder, 'trained.pth', 'x', '--backend', 'onnxruntime', '--precision', 'bf16')
    assert "'bf16': onnxruntime has fp32 and int8" in error_of(evaluate, *argv)
    argv = test_argv(folder, 'deployed.pth', 'x', '--deploy', '--precision', 'bf16')
    assert 'is a deployed one of fp32' in error_of(evaluate, *argv)
    with pytest.raises(SystemExit):
        evaluate(test_argv(folder, 'trained.pth', 'x', '--precision', 'bf16'))
    deploy = load_main('deploy')
    argv = [a.replace('trained.pth', 'deployed.pth') for a in int8_argv(folder, 'c.pth')]
    assert 'is a deployed one of fp32' in error_of(deploy, *argv)


def test_a_graph_in_int8(folder, monkeypatch):
    pytest.importorskip('onnxruntime')
    pytest.importorskip('onnxscript')
    argv = int8_argv(folder, 'int8.onnx', f'--data-root={folder / "coco"}', '--end2end')
    lines = []
    export = load_main('export_onnx')
    monkeypatch.setitem(export.__globals__, 'announce', lines.append)
    export(argv)
    told = lines[0]
    assert 'then quantized on 2 images; onnxruntime: 60 detections in 3 random images' in told
    assert ', openvino: 60 detections' in told or 'openvino, which is not installed' in told
    import onnx

    kinds = {node.op_type for node in onnx.load(folder / 'int8.onnx').graph.node}
    assert {'QuantizeLinear', 'DequantizeLinear', 'NonMaxSuppression'} <= kinds
    assert not [*folder.glob('.int8*')]
    want = predictions(folder, 'trained.pth', 'plain_int8')
    got = predictions(folder, 'int8.onnx', 'end_to_end_int8')
    for mine, theirs in zip(got, want, strict=True):
        torch.testing.assert_close(mine['scores'], theirs['scores'], rtol=0.1, atol=0.02)
        assert not torch.equal(mine['scores'], theirs['scores'])


def test_graph_of_any_batch_and_size(folder, exported):
    _, path = exported
    cfg = Config.fromfile(folder / 'config.py')
    cfg.model.bbox_head.num_classes = 2
    model = MODELS.build(cfg.model).eval()
    model.load_state_dict(torch.load(folder / 'trained.pth')['state_dict'])
    session = open_session(path)
    for shape in ((1, 3, 64, 96), (3, 3, 128, 64)):
        images = torch.randn(shape)
        raw = RawOutputs(model)
        with torch.no_grad():
            want = raw(images)
        got = session.run(None, {'images': images.numpy()})
        assert [o.name for o in session.get_outputs()] == raw.names
        for mine, theirs in zip(got, want, strict=True):
            torch.testing.assert_close(torch.from_numpy(mine), theirs, rtol=1e-3, atol=1e-4)


def test_export_names_the_package_it_lacks(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(
        'mmdet_hetconv.export.runtimes.find_spec',
        lambda name: None if name == 'onnxscript' else object(),
    )
    out = tmp_path / 'model.onnx'
    argv = [folder / 'config.py', folder / 'trained.pth', '--out', out]
    message = error_of(load_main('export_onnx'), *argv)
    assert message.endswith('pip install onnxscript')
    assert not out.exists()


def test_export_refuses_what_it_cannot_write(folder, tmp_path):
    argv = [folder / 'config.py', folder / 'trained.pth', '--out', tmp_path]
    assert 'is a folder' in error_of(load_main('export_onnx'), *argv)


def export(folder, out, *flags):
    argv = [folder / 'config.py', folder / 'trained.pth', '--out', out, *flags]
    size = ('--size', 64, 96, '--cfg-options', 'model.bbox_head.num_classes=2')
    scale = 'test_dataloader.dataset.pipeline.1.scale=(64,48)'
    return [str(word) for word in (*argv, *size, scale)]


@pytest.fixture(scope='module')
def end_to_end(folder):
    """A graph from an image to boxes, alone in a folder with its script."""
    for package in ('onnxruntime', 'openvino', 'onnxscript'):
        pytest.importorskip(package)
    out = folder / 'elsewhere' / 'my model.onnx'
    load_main('export_onnx')(export(folder, out, '--end2end'))
    return out


@pytest.fixture
def exported_before(exported, monkeypatch):
    """Takes the graph that is there in place of exporting it again."""
    monkeypatch.setattr(
        'mmdet_hetconv.workflow.exporting.export_onnx',
        lambda detector, size, path: shutil.copy(exported[1], path) and ['a', 'b'],
    )


@pytest.mark.usefixtures('exported_before')
def test_export_compares_the_graph_with_torch(folder, tmp_path, capsys):
    out = tmp_path / 'model.onnx'
    load_main('export_onnx')(export(folder, out))
    told = re.search(r'equal to torch to (\S+) on an image of 128 x 160', capsys.readouterr().out)
    assert 0 < float(told[1]) < 1e-4
    assert [path.name for path in tmp_path.iterdir()] == ['model.onnx']


def test_a_wrong_graph_is_not_written(folder, tmp_path, exported, monkeypatch):
    def spoil(detector, size, path):
        shutil.copy(exported[1], path)
        for value in detector.bbox_head.retina_cls.state_dict().values():
            value.mul_(1.01)
        return ['a', 'b']

    monkeypatch.setattr('mmdet_hetconv.workflow.exporting.export_onnx', spoil)
    message = error_of(load_main('export_onnx'), *export(folder, tmp_path / 'model.onnx'))
    assert 'differ from torch' in message and 'model.onnx' in message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('backend', ['torch', 'openvino'])
def test_an_end_to_end_graph_detects_the_same(folder, end_to_end, backend):
    want = predictions(folder, 'trained.pth', 'plain_end_to_end')
    name = f'end_to_end_{backend}'
    got = predictions(folder, 'elsewhere/my model.onnx', name, '--backend', backend)
    for mine, theirs in zip(got, want, strict=True):
        assert len(theirs['scores']) == 20
        # An image of noise, of which one level more or less is 1 / 57.
        torch.testing.assert_close(mine['scores'], theirs['scores'], rtol=0, atol=0.02)
        overlaps = bbox_overlaps(theirs['bboxes'], mine['bboxes'])
        assert (overlaps.amax(1) > 0.9).float().mean() > 0.8


def test_the_script_needs_neither_torch_nor_mmdet(folder, end_to_end):
    """In an empty folder beside it, with a package path of numpy and the runtime."""
    image = next((folder / 'coco').rglob('*.jpg'))
    script = end_to_end.with_name('my model_detect.py')
    low = script.read_text().replace('LOWEST = 0.3', 'LOWEST = 0.0')
    script.with_name('low.py').write_text(
        'import sys\n'
        "sys.modules.update(dict.fromkeys(['torch', 'mmdet', 'mmcv', 'mmengine']))\n" + low
    )
    printed = []
    for runtime in ([], ['openvino']):
        words = [sys.executable, script.with_name('low.py'), image, *runtime]
        result = subprocess.run(words, capture_output=True, text=True, check=True)
        printed.append([line.split() for line in result.stdout.splitlines()])
    assert len(printed[0]) == 20 and {words[0] for words in printed[0]} <= {'disc', 'bar'}
    scores = [[float(words[1]) for words in lines] for lines in printed]
    assert scores[0] == pytest.approx(scores[1], abs=2e-3)
    result = subprocess.run(
        [sys.executable, script, script], capture_output=True, text=True, check=False
    )
    assert result.returncode and 'is no image' in result.stderr


@pytest.mark.usefixtures('exported_before')
def test_a_wrong_end_to_end_graph_is_not_written(folder, tmp_path, monkeypatch):
    """Its preparation forgets to reverse the colours, or its decoding to clip."""
    engine = mmdet_hetconv.workflow.end_to_end
    words = export(folder, tmp_path / 'model.onnx', '--end2end')
    save = engine.save_preparation
    with monkeypatch.context() as patch:
        patch.setattr(
            engine,
            'save_preparation',
            lambda prepare, *rest: save(dataclasses.replace(prepare, swap=not prepare.swap), *rest),
        )
        assert 'or other values, torch (1, 3,' in error_of(load_main('export_onnx'), *words)
    decode = engine.export_decoding

    def spoil(detector, *rest):
        detector.bbox_head.bbox_coder.clip_border = False
        decode(detector, *rest)
        detector.bbox_head.bbox_coder.clip_border = True

    monkeypatch.setattr(engine, 'export_decoding', spoil)
    message = error_of(load_main('export_onnx'), *words)
    assert 'have no counterpart (one of 260 x 620 of 3 random images)' in message
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_exported_end_to_end(folder, tmp_path):
    words = export(folder, tmp_path / 'model.onnx', '--end2end')
    for option, message in [
        ('model.test_cfg.nms.type=soft_nms', 'a graph has only nms with iou_threshold'),
        ('test_dataloader.dataset.pipeline.1.type=RandomFlip', 'has RandomFlip, which the graph'),
    ]:
        assert message in error_of(load_main('export_onnx'), *words, option)
    assert not list(tmp_path.iterdir())


def test_what_is_no_end_to_end_graph(folder, end_to_end, exported, tmp_path):
    def refused(path, *flags):
        argv = test_argv(folder, path, 'x', *flags)
        return error_of(evaluate, *argv)

    (folder / 'text.onnx').write_text('no graph')
    assert 'text.onnx: it is no ONNX file' in refused('text.onnx')
    assert 'is none of export_onnx.py --end2end: its outputs are' in refused('onnx/deployed.onnx')
    assert 'none.onnx does not exist' in refused('none.onnx')
    name = 'elsewhere/my model.onnx'
    assert 'is a graph as it is' in refused(name, '--deploy')
    flags = ('--backend', 'openvino', '--precision', 'int8')
    assert 'is a graph as it is' in refused(name, *flags)
