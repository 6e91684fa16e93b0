"""A dense checkpoint becomes a heterogeneous one, through the tool."""

import errno
import os

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmdet_hetconv.analysis import count_complexity
from mmdet_hetconv.layers import HetConv2d
from mmdet_hetconv.workflow import conversion
from tests import tiny

from .entry import error_of, evaluate, load_main, train

convert = load_main('convert_checkpoint')
CONV_CFG = "        conv_cfg=dict(type='HetConv', p=4),\n"
OPTIONS = ('--cfg-options', *tiny.SCALES)


def build(config):
    from mmdet.registry import MODELS

    init_default_scope('mmdet')
    return MODELS.build(Config.fromfile(config).model)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A data set, both configs and the checkpoint of a dense detector."""
    path = tmp_path_factory.mktemp('convert')
    tiny.write_coco(path / 'coco')
    classes = '\nmodel["roi_head"]["bbox_head"]["num_classes"] = 2\n'
    tiny.write_config(path / 'het.py', classes)
    dense = tiny.CONFIG.replace(CONV_CFG, '')
    assert dense != tiny.CONFIG
    (path / 'dense.py').write_text(dense + classes)
    torch.manual_seed(0)
    model = build(path / 'dense.py')
    torch.save(
        dict(state_dict=model.state_dict(), meta=dict(dataset_meta=dict(classes=tiny.CLASSES))),
        path / 'dense.pth',
    )
    return path


def argv(folder, out, *more, checkpoint='dense.pth', het='het.py'):
    words = (folder / 'dense.py', folder / checkpoint, folder / het)
    return [*map(str, words), '--out', str(out), *map(str, more), *OPTIONS]


@pytest.fixture(scope='module')
def converted(folder):
    out = folder / 'het.pth'
    convert(argv(folder, out, '--data-root', folder / 'coco', '--permute'))
    return out


def test_the_result_is_an_ordinary_checkpoint(folder, converted):
    content = torch.load(converted, weights_only=True)
    assert set(content) == {'state_dict', 'meta'}
    assert content['meta']['dataset_meta']['classes'] == tiny.CLASSES
    model = build(folder / 'het.py')
    model.load_state_dict(content['state_dict'], strict=True)
    assert not list(folder.glob('.*.part'))


def test_the_report_has_every_layer_and_two_metrics(folder, converted):
    report = torch.load(converted, weights_only=True)['meta']['conversion']
    het = [
        name
        for name, module in build(folder / 'het.py').named_modules()
        if isinstance(module, HetConv2d)
    ]
    assert sorted(report['relative_error']) == sorted(het)
    assert all(0 < error < 1 for error in report['relative_error'].values())
    assert list(report['metrics']) == ['dense', 'calibrated']
    assert report['images'] == tiny.SPLITS['train']
    # conv1's filters are conv2's channels: a free axis in every block.
    assert sorted(report['permuted']) == sorted(het)


def test_it_is_evaluated_and_trained_on(folder, converted, tmp_path):
    common = ['--data-root', str(folder / 'coco'), '--work-dir']
    config = str(folder / 'het.py')
    evaluate([config, str(converted), *common, str(tmp_path / 'e'), *OPTIONS])
    load = [f'load_from={converted}', 'train_cfg.max_epochs=1']
    train([config, *common, str(tmp_path / 't'), *OPTIONS, *load])
    assert (tmp_path / 't' / 'epoch_1.pth').is_file()


def test_distillation_follows_the_fit(folder, tmp_path, monkeypatch):
    monkeypatch.setattr('mmdet_hetconv.convert.distillation.batches.IMAGES', 2)
    out = tmp_path / 'distilled.pth'
    convert(argv(folder, out, '--data-root', folder / 'coco', '--no-eval', '--distil', '40'))
    content = torch.load(out, weights_only=True)
    report = content['meta']['conversion']['distilled']
    assert report['steps'] <= 40
    assert report['after'] < report['before']
    build(folder / 'het.py').load_state_dict(content['state_dict'], strict=True)


def test_layers_are_fitted_to_the_images_that_memory_holds(folder, tmp_path, monkeypatch):
    seen = []
    original = conversion.calibrate

    def watched(dense, het, batches, *args, **kwargs):
        seen.append(len(batches))
        return original(dense, het, batches, *args, **kwargs)

    monkeypatch.setattr(conversion, 'calibrate', watched)
    monkeypatch.setattr(conversion, 'count_fitting', lambda *args: 1)
    said = []
    monkeypatch.setattr(conversion, 'announce', lambda line, *args: said.append(line))
    convert(argv(folder, tmp_path / 'h.pth', '--data-root', folder / 'coco', '--no-eval'))
    assert seen == [2]
    wanted = f'layers are fitted to 2 of the {tiny.SPLITS["train"]} images: '
    assert any(line.startswith(wanted) for line in said), said


def test_free_needs_no_images(folder, tmp_path):
    out = tmp_path / 'free.pth'
    convert(argv(folder, out, '--method', 'free'))
    state = torch.load(out, weights_only=True)['state_dict']
    dense = build(folder / 'dense.py')
    content = torch.load(folder / 'dense.pth', weights_only=True)
    dense.load_state_dict(content['state_dict'])
    het = build(folder / 'het.py')
    het.load_state_dict(dense.state_dict())
    for name, value in het.state_dict().items():
        assert torch.equal(state[name], value), name


def test_a_backbone_alone(folder, tmp_path):
    """As 'torchvision://resnet50' is: no prefix, and nothing else."""
    content = torch.load(folder / 'dense.pth', weights_only=True)
    backbone = {
        key.removeprefix('backbone.'): value
        for key, value in content['state_dict'].items()
        if key.startswith('backbone.')
    }
    torch.save(backbone, tmp_path / 'backbone.pth')
    out = tmp_path / 'het.pth'
    words = argv(folder, out, '--data-root', folder / 'coco')
    words[1] = str(tmp_path / 'backbone.pth')
    convert(words)
    written = torch.load(out, weights_only=True)
    assert all(key.startswith('backbone.') for key in written['state_dict'])
    assert len(written['meta']['conversion']['relative_error']) == 16
    model = build(folder / 'het.py')
    missing, extra = model.load_state_dict(written['state_dict'], strict=False)
    assert not extra
    assert not [key for key in missing if key.startswith('backbone.')]


def test_images_without_annotations(folder, tmp_path):
    """Drawn by the seed, no evaluation, as many as asked for."""
    out = tmp_path / 'het.pth'
    images = folder / 'coco' / 'train2017'
    convert(argv(folder, out, '--data-root', images, '--calib', 4))
    report = torch.load(out, weights_only=True)['meta']['conversion']
    assert report['images'] == 4
    assert report['metrics'] == {}


class TestBadInput:
    @pytest.fixture
    def out(self, tmp_path):
        out = tmp_path / 'out.pth'
        yield out
        assert not out.exists()
        assert not list(tmp_path.glob('.*.part'))

    def test_configs_that_do_not_match(self, folder, out):
        text = (folder / 'het.py').read_text()
        wide = text.replace('base_channels=16', 'base_channels=32')
        wide = wide.replace('[16, 32, 64, 128]', '[32, 64, 128, 256]')
        (folder / 'wide.py').write_text(wide)
        message = error_of(convert, *argv(folder, out, '--method', 'free', het='wide.py'))
        assert 'dense.py cannot be converted into' in message
        assert 'backbone.layer1.0.conv1: in_channels is 32' in message

    def test_a_target_without_hetconv(self, folder, out):
        message = error_of(convert, *argv(folder, out, '--method', 'free', het='dense.py'))
        assert 'the target model has no HetConv layer' in message

    def test_a_source_with_hetconv(self, folder, out, monkeypatch):
        """Seen before anything that takes long."""
        torch.save(build(folder / 'het.py').state_dict(), out.with_name('h.pth'))
        words = argv(folder, out, '--data-root', folder / 'coco')
        words[:2] = str(folder / 'het.py'), str(out.with_name('h.pth'))
        monkeypatch.setattr(conversion, 'evaluate', None)
        message = error_of(convert, *words)
        assert 'the dense model has 16 HetConv layers already, backbone.layer1' in message
        assert 'of a dense detector' in message

    def test_missing_keys(self, folder, out, tmp_path):
        content = torch.load(folder / 'dense.pth', weights_only=True)
        del content['state_dict']['backbone.layer3.0.conv1.weight']
        torch.save(content, tmp_path / 'part.pth')
        words = argv(folder, out)
        words[1] = str(tmp_path / 'part.pth')
        message = error_of(convert, *words)
        assert 'backbone.layer3.0.conv1.weight' in message
        assert '1 weights of' in message

    def test_weights_that_are_not_finite(self, folder, out, tmp_path):
        content = torch.load(folder / 'dense.pth', weights_only=True)
        content['state_dict']['neck.fpn_convs.0.conv.bias'][3] = torch.nan
        torch.save(content, tmp_path / 'nan.pth')
        words = argv(folder, out, '--method', 'free')
        words[1] = str(tmp_path / 'nan.pth')
        message = error_of(convert, *words)
        assert 'neck.fpn_convs.0.conv.bias is not finite' in message

    def test_no_images(self, folder, out, tmp_path):
        empty = tmp_path / 'empty'
        empty.mkdir()
        message = error_of(convert, *argv(folder, out, '--data-root', empty))
        assert f'--data-root {empty} has no images' in message
        message = error_of(convert, *argv(folder, out, '--data-root', tmp_path / 'nowhere'))
        assert 'nowhere is not a folder' in message

    def test_an_image_that_cannot_be_read(self, folder, out, tmp_path):
        images = tmp_path / 'images'
        tiny.draw(images / 'a.jpg', 0)
        noise = np.random.default_rng(0).bytes(200)
        (images / 'b.jpg').write_bytes(noise)
        message = error_of(convert, *argv(folder, out, '--data-root', images))
        assert f'{images / "b.jpg"} is not an image' in message

    def test_no_data_at_all(self, folder, out):
        message = error_of(convert, *argv(folder, out))
        assert 'train_dataloader.dataset cannot be read' in message
        assert '--data-root' in message

    def test_a_place_that_cannot_be_written_to(self, folder, tmp_path):
        (tmp_path / 'file').write_text('')
        for out in (tmp_path / 'file' / 'a.pth', tmp_path):
            message = error_of(convert, *argv(folder, out))
            assert '--out' in message and str(tmp_path) in message

    def test_a_write_that_fails(self, folder, out, monkeypatch):
        """A full disk, half-way."""

        def fsync(handle):
            raise OSError(errno.ENOSPC, 'No space left on device')

        monkeypatch.setattr(os, 'fsync', fsync)
        message = error_of(convert, *argv(folder, out, '--method', 'free'))
        assert f'{out} cannot be written: No space left on device' in message
        assert not list(out.parent.iterdir())

    def test_contradicting_arguments(self, folder, out, capsys):
        mistakes = [
            ['--method', 'free', '--permute'],
            ['--method', 'free', '--distil'],
            ['--calib', '0'],
            ['--distil', '0'],
            ['--distil', 'infm'],
            ['--distil', 'long'],
        ]
        for words in mistakes:
            with pytest.raises(SystemExit) as stop:
                convert(argv(folder, out, *words))
            assert stop.value.code == 2
        said = capsys.readouterr().err
        assert '--permute needs images' in said
        assert '--distil needs images' in said
        assert "'long' is neither a number of steps nor one of minutes" in said


def test_a_p_for_each_layer_under_a_budget(folder, tmp_path, capsys):
    out = tmp_path / 'budget.pth'
    convert(argv(folder, out, '--data-root', folder / 'coco', '--target-macs', '0.7'))
    printed, bars = capsys.readouterr()
    assert 'Errors of layers' in bars and 'Evaluating' in bars
    assert '--target-macs 0.7: 0.6' in printed or '--target-macs 0.7: 0.7' in printed
    cfg = Config.fromfile(tmp_path / 'budget.py')
    layers = cfg.model.layers
    assert set(layers.values()) <= {2, 4, 8, 16} and layers
    model = build(tmp_path / 'budget.py')
    found = {n: m.p for n, m in model.named_modules() if isinstance(m, HetConv2d)}
    assert found == dict(layers)
    model.load_state_dict(torch.load(out, weights_only=True)['state_dict'])
    costs = count_complexity(model, (64, 64))
    assert 0.6 < costs.total('macs') / costs.total('dense_macs') <= 0.7
    # It trains on and is evaluated as any other.
    flags = ('--data-root', folder / 'coco', '--work-dir', tmp_path / 'w')
    evaluate([str(tmp_path / 'budget.py'), str(out), *map(str, flags), *OPTIONS])


def test_milliseconds_as_the_budget(folder, tmp_path, monkeypatch):
    def times(deployed, images):
        convs = [n for n, m in deployed[1].named_modules() if type(m).__name__ == 'PlannedConv2d']
        assert images.shape[:2] == (1, 3)
        by_layer = {name: {p: 1 / p for p in deployed} for name in convs}
        return by_layer, {p: 1.0 + len(convs) / p for p in deployed}

    monkeypatch.setattr('mmdet_hetconv.workflow.layer_choice.layer_times', times)
    monkeypatch.setattr('mmdet_hetconv.workflow.layer_choice.CHOICES', (1, 4))
    out = tmp_path / 'budget.pth'
    flags = ('--data-root', folder / 'coco', '--no-eval', '--target-ms')
    assert 'out of reach, the least is' in error_of(convert, *argv(folder, out, *flags, '1.01'))
    assert 'within it already' in error_of(convert, *argv(folder, out, *flags, '1e9'))
    assert not out.exists() and not out.with_suffix('.py').exists()


@pytest.mark.parametrize('name', ['het.pth', 'dense.pth', 'new.py'])
def test_a_budgets_config_replaces_none_that_is_there(folder, name):
    texts = {path: path.read_bytes() for path in folder.glob('*.py')}
    message = error_of(convert, *argv(folder, folder / name, '--target-macs', '0.7'))
    assert 'would replace' in message
    assert {path: path.read_bytes() for path in folder.glob('*.py')} == texts


@pytest.mark.parametrize('value', ['0', '-1', 'inf', 'x'])
def test_what_is_no_budget(folder, tmp_path, value):
    with pytest.raises(SystemExit):
        convert(argv(folder, tmp_path / 'a.pth', f'--target-macs={value}'))
