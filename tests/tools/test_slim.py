"""From a dense detector to a faster one in one command."""

import json
import re
import shutil

import pytest
import torch
from mmengine.config import Config

import mmdet_hetconv.workflow.slimming.slim
from mmdet_hetconv.kernels import planned_convs
from tests import tiny

from .conftest import forget
from .entry import error_of, load_main, train
from .test_convert_checkpoint import CONV_CFG, OPTIONS, build

slim = load_main('slim')
slimming = mmdet_hetconv.workflow.slimming.slim


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp('slim')
    tiny.write_coco(path / 'coco')
    classes = '\nmodel["roi_head"]["bbox_head"]["num_classes"] = 2\n'
    (path / 'dense.py').write_text(tiny.CONFIG.replace(CONV_CFG, '') + classes)
    torch.manual_seed(0)
    state = build(path / 'dense.py').state_dict()
    meta = dict(dataset_meta=dict(classes=tiny.CLASSES))
    torch.save(dict(state_dict=state, meta=meta), path / 'dense.pth')
    return path


def argv(folder, out, *flags):
    words = (folder / 'dense.py', folder / 'dense.pth', '--out', folder / out, *flags)
    words += ('--data-root', folder / 'coco', '--distil', 2, '--calib', 4)
    return [*map(str, words), *OPTIONS]


@pytest.fixture(scope='module')
def done(folder):
    slim(argv(folder, 'out', '--target-macs', 0.7))
    forget()
    return folder / 'out'


def test_everything_is_in_the_folder(done):
    page = (done / 'index.html').read_text()
    forms = [
        f'{kind}, {form} (fp32)'
        for kind in ('dense', 'HetConv')
        for form in ('trained form', 'deployed')
    ]
    assert re.findall('<th scope="row">((?:dense|HetConv),.*?)</th>', page) == forms
    assert 'data:image/png;base64,' in page
    assert f'python tools/train.py {done / "train_on.py"}' in page
    gain = re.search(r'MACs\).*?× (0\.\d+)', page, re.DOTALL)
    assert 0.6 < float(gain[1]) <= 0.7
    assert len(list((done / 'images').iterdir())) == tiny.SPLITS['val']
    layers = Config.fromfile(done / 'converted.py').model.layers
    assert 'rpn_head.rpn_conv' in Config.fromfile(done / 'eligible.py').model.layers
    assert layers and not any('rpn_cls' in name for name in layers)
    content = torch.load(done / 'deployed.pth', weights_only=True)
    assert content['hetconv_plan'] and content['hetconv_precision'] == 'fp32'


def test_the_report_is_of_what_is_shipped_in_int8(folder, done, monkeypatch, capsys):
    """Metrics and time of each form against the dense detector as it was given."""
    copied = folder / 'int8'
    words = argv(folder, 'int8', '--target-macs', 0.7, '--precision', 'int8')
    shutil.copytree(done, copied)
    note = json.loads((copied / 'slim.json').read_text())
    (copied / 'slim.json').write_text(json.dumps(note | dict(precision='int8')))
    for name in ('deployed.pth', 'dense_deployed.pth', 'report.json'):
        (copied / name).unlink()
    names = json.loads((done / 'report.json').read_text())['forms'][0]['metrics']
    evaluated = []

    def evaluate(cfg, model):
        kinds = {bool(conv.int8) for conv in planned_convs(model)}
        evaluated.append(kinds)
        return dict.fromkeys(names, 0.5 + 0.1 * len(evaluated))

    monkeypatch.setattr(slimming, 'evaluate', evaluate)
    slim(words)
    # The conversion has measured both trained forms.
    assert evaluated == [{False}, {True}, {True}]
    rows = json.loads((copied / 'report.json').read_text())['forms']
    labels = [row['label'] for row in rows]
    assert labels == [
        'dense, trained form (fp32)',
        'dense, deployed (fp32)',
        'dense, deployed (int8)',
        'HetConv, trained form (fp32)',
        'HetConv, deployed (int8)',
    ]
    assert rows[-1]['metrics']['coco/bbox_mAP'] == pytest.approx(0.8)
    assert all(row['ms'] > 0 for row in rows)
    page = (copied / 'index.html').read_text()
    assert '<td>trained form (fp32)</td><td>deployed (int8)</td>' in page
    assert re.search(r'HetConv, deployed \(int8\)</th><td>0.800</td>', page)
    said = capsys.readouterr().out
    assert re.search(
        r'index.html is the report: .* to 0.800 mAP|nothing is gained: .* in int8', said
    )


def test_steps_that_are_done_are_not_done_again(folder, done, monkeypatch):
    def refuse(*args, **more):
        raise AssertionError('again')

    for name in ('convert_detector', 'measure', 'evaluate'):
        monkeypatch.setattr(slimming, name, refuse)
    before = (done / 'deployed.pth').stat().st_mtime_ns
    (done / 'index.html').unlink()
    slim(argv(folder, 'out', '--target-macs', 0.7))
    assert (done / 'index.html').exists()
    assert (done / 'deployed.pth').stat().st_mtime_ns == before
    message = error_of(slim, *argv(folder, 'out', '--target-macs', 0.8))
    assert 'holds the work of target_macs=0.7, not of target_macs=0.8' in message


def test_the_work_of_other_weights_is_not_taken_for_these(folder, done):
    former = (folder / 'dense.pth').read_bytes()
    content = torch.load(folder / 'dense.pth', weights_only=True)
    content['state_dict']['backbone.conv1.weight'] *= 2
    torch.save(content, folder / 'dense.pth')
    message = error_of(slim, *argv(folder, 'out', '--target-macs', 0.7))
    (folder / 'dense.pth').write_bytes(former)
    assert 'holds the work of checkpoint_sha256=' in message
    text = (folder / 'dense.py').read_text()
    (folder / 'dense.py').write_text(text + '\nmodel["test_cfg"]["rcnn"]["score_thr"] = 0.1\n')
    message = error_of(slim, *argv(folder, 'out', '--target-macs', 0.7))
    (folder / 'dense.py').write_text(text)
    assert 'holds the work of config_sha256=' in message


def test_what_was_made_of_a_checkpoint_goes_with_it(folder, done, monkeypatch):
    copied = folder / 'copied'
    shutil.copytree(done, copied)
    (copied / 'converted.pth').unlink()

    def stop(*args, **more):
        raise KeyboardInterrupt

    monkeypatch.setattr(slimming, 'convert_detector', stop)
    with pytest.raises(KeyboardInterrupt):
        slim(argv(folder, 'copied', '--p', 2))
    left = {path.name for path in copied.iterdir()}
    assert left == {'slim.json', 'dense.py', 'converted.py', 'images', 'train_on.py'}


def test_it_trains_on_for_an_epoch_at_a_lower_rate(folder, done):
    words = (done / 'train_on.py', '--work-dir', folder / 'w', '--cfg-options', *tiny.SCALES)
    train([*map(str, words)])
    assert [path.name for path in (folder / 'w').glob('*.pth')] == ['epoch_1.pth']
    state = torch.load(folder / 'w' / 'epoch_1.pth', weights_only=False)['state_dict']
    cfg = Config.fromfile(done / 'converted.py')
    assert all(f'{name}.grouped.weight' in state for name in cfg.model.layers)
    tuned = Config.fromfile(done / 'train_on.py')
    assert tuned.optim_wrapper.optimizer.lr == pytest.approx(0.1 * cfg.optim_wrapper.optimizer.lr)
    assert cfg.train_cfg.max_epochs == 2


def test_what_cannot_be_slimmed(folder, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr('mmdet_hetconv.deploy.precision._computes_bf16', lambda device: False)
        message = error_of(slim, *argv(folder, 'p', '--p', 2, '--precision', 'bf16'))
    assert 'multiplies no bfloat16' in message
    assert not [*(folder / 'p').iterdir()]
    message = error_of(slim, *argv(folder, 'b', '--target-macs', 0.01))
    assert message.startswith('slim.py: error: --target-macs 0.01 is out of reach, the least is')
    assert not (folder / 'b' / 'converted.pth').exists()
    # Nothing was done there yet: other arguments may.
    message = error_of(slim, *argv(folder, 'b', '--target-macs', 0.02))
    assert '--target-macs 0.02 is out of reach' in message
    words = argv(folder, 'h', '--p', 4)
    text = (folder / 'dense.py').read_text()
    (folder / 'het.py').write_text(
        text + "\nmodel['backbone']['conv_cfg'] = dict(type='HetConv')\n"
    )
    message = error_of(slim, folder / 'het.py', *words[1:])
    assert 'het.py: its detector has 16 HetConv layers already' in message
    assert not (folder / 'h' / 'slim.json').exists()
    assert 'p=7 fits none' in error_of(slim, *argv(folder, 'c', '--p', 7))
    everything = ('backbone', 'neck', 'rpn_head', 'roi_head')
    assert 'fits none' in error_of(slim, *argv(folder, 'd', '--exclude', *everything))
    with pytest.raises(SystemExit):
        slim(argv(folder, 'e', '--p', 1))
