"""Validation loss, patience, and what a training says at its end."""

import json
import logging
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MessageHub

from mmdet_hetconv.comfort.training.hooks.patience import PatienceHook
from mmdet_hetconv.comfort.training.hooks.val_loss import _annotated_first
from mmdet_hetconv.utils.errors import UserError
from mmdet_hetconv.workflow.config.configs import use_training_hooks
from tests import tiny

from .conftest import forget
from .entry import error_of, train


def argv(folder, work, *flags):
    words = (folder / 'tiny.py', '--data-root', folder / 'coco', '--work-dir', folder / work)
    return [*map(str, words), *flags, '--cfg-options', *tiny.SCALES]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp('hooks')
    tiny.write_coco(path / 'coco')
    tiny.write_config(path / 'tiny.py')
    return path


def test_validation_loss_changes_nothing_and_is_drawn(folder, capfd):
    train(argv(folder, 'plain'))
    forget()
    train(argv(folder, 'looked', '--val-loss', '--patience', '1'))
    states = [
        torch.load(folder / work / 'epoch_2.pth', weights_only=False)['state_dict']
        for work in ('plain', 'looked')
    ]
    for key, value in states[0].items():
        assert torch.equal(value, states[1][key]), key
    (path,) = (folder / 'looked').glob('*/vis_data/scalars.json')
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    found = [row for row in rows if 'val_loss' in row]
    assert [row['step'] for row in found] == [1, 2]
    for row in found:
        parts = [value for key, value in row.items() if key.startswith('val_loss_')]
        assert len(parts) == 4
        assert row['val_loss'] == pytest.approx(sum(parts), rel=1e-4)
    # Of other images than the training's, but of the same kind.
    last = [row['loss'] for row in rows if 'loss' in row][-1]
    assert 0.3 * last < found[-1]['val_loss'] < 3 * last
    assert (folder / 'looked' / 'curves.png').read_bytes()[:4] == b'\x89PNG'
    assert (folder / 'plain' / 'curves.png').exists()
    printed = capfd.readouterr()
    lines = (printed.out + printed.err).splitlines()
    (best,) = (folder / 'looked').glob('best_coco_bbox_mAP_epoch_*.pth')
    assert lines[-2].endswith(f'best checkpoint: {best}')
    assert f'tools/test.py {folder / "looked" / "tiny.py"} {best}' in lines[-1]


def test_annotations_are_loaded_before_the_image_is_resized():
    names = ['LoadImageFromFile', 'Resize', 'LoadAnnotations', 'PackDetInputs']
    steps = [dict(type=name) for name in names]
    found = [step['type'] for step in _annotated_first(steps, 'x')]
    assert found == ['LoadImageFromFile', 'LoadAnnotations', 'Resize', 'PackDetInputs']
    with pytest.raises(UserError, match='x.pipeline loads no annotations'):
        _annotated_first(steps[:2], 'x')


def validate(hook, hub, *scores):
    """The validations after which the hook let the training end."""
    runner = SimpleNamespace(
        message_hub=hub,
        train_loop=SimpleNamespace(stop_training=False),
        logger=SimpleNamespace(info=lambda text: None),
    )
    hook.before_train(runner)
    for number, score in enumerate(scores, 1):
        hook.after_val_epoch(runner, {'coco/bbox_mAP': score, 'coco/bbox_mAP_50': 0.0})
        if runner.train_loop.stop_training:
            return number
    return None


def test_patience_counts_what_gains_too_little():
    hub = MessageHub('patience')
    assert validate(PatienceHook(2), hub, 0.1, 0.2, 0.2004, 0.2008) == 4
    assert validate(PatienceHook(2), MessageHub('b'), 0.1, 0.1005, 0.1015, 0.1, 0.2) is None


def test_patience_goes_on_after_a_resumption():
    hub = MessageHub('first')
    assert validate(PatienceHook(3), hub, 0.3, 0.2) is None
    again = MessageHub('second')
    again.load_state_dict(hub.state_dict())
    assert validate(PatienceHook(3), again, 0.2, 0.3) == 2


def test_a_config_that_stops_at_once_is_named(monkeypatch):
    told = []
    monkeypatch.setattr(
        'mmdet_hetconv.workflow.config.configs.announce', lambda *words: told.append(words)
    )
    hooks = [dict(type='EarlyStoppingHook', monitor='coco/bbox_mAP')]
    cfg = Config(dict(custom_hooks=hooks, default_hooks=dict(checkpoint=dict())))
    use_training_hooks(cfg, False, None)
    ((text, level),) = told
    assert 'without min_delta takes 0.1' in text and level == logging.WARNING
    assert [hook['type'] for hook in cfg.custom_hooks] == [
        'EarlyStoppingHook',
        'FiniteLossHook',
        'CurvesHook',
    ]


@pytest.mark.parametrize('flags', [('--val-loss',), ('--patience', '2')])
def test_without_validation(folder, tmp_path, flags):
    config = tmp_path / 'tiny.py'
    config.write_text(tiny.CONFIG + 'val_dataloader = val_evaluator = val_cfg = None\n')
    argv = (config, '--work-dir', tmp_path / 'w', *flags)
    assert f'{flags[0]}: config {config} has no val_dataloader' in error_of(train, *argv)


def test_patience_is_a_number():
    with pytest.raises(SystemExit):
        train(['a.py', '--patience', '0'])
