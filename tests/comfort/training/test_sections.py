"""Sections of a config that are of a wrong kind, or need what is not there."""

import pytest
from mmdet.registry import METRICS
from mmengine.config import Config

from mmdet_hetconv.comfort.training import sections
from mmdet_hetconv.utils.errors import UserError
from tests import tiny
from tests.tools.conftest import fresh_process  # noqa: F401
from tests.tools.entry import error_of, train


@pytest.mark.parametrize(
    'option, message',
    [
        ('default_hooks=foo', "default_hooks='foo' is not a dict"),
        ('default_hooks.checkpoint=foo', "default_hooks.checkpoint='foo' is"),
        ('default_hooks.timer=3', 'default_hooks.timer=3 is not a dict'),
        ('custom_hooks=foo', "custom_hooks='foo' is not a list of dicts"),
        ('custom_hooks=[foo]', "custom_hooks[0]='foo' is not a dict"),
        ('optim_wrapper=foo', "optim_wrapper='foo' is not a dict"),
        ('param_scheduler=foo', "param_scheduler='foo' is not a dict"),
        ('train_cfg=foo', "train_cfg='foo' is not a dict"),
        ('visualizer=foo', "visualizer='foo' is not a dict"),
        ('visualizer.vis_backends=foo', "vis_backends='foo' is not a list"),
        ('log_processor=foo', "log_processor='foo' is not a dict"),
        ('val_evaluator=foo', "val_evaluator='foo' is not a dict"),
    ],
)
def test_text_in_place_of_a_section(tmp_path, option, message):
    config = tiny.write_config(tmp_path / 'tiny.py')
    argv = (config, '--work-dir', tmp_path / 'w', '--cfg-options', option)
    assert message in error_of(train, *argv)
    assert not (tmp_path / 'w').exists()


@pytest.mark.parametrize('kind', ['Tensorboard', 'Wandb', 'MLflow'])
def test_backend_whose_package_is_missing(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(sections, 'find_spec', lambda name: None)
    config = tiny.write_config(tmp_path / 'tiny.py')
    kind += 'VisBackend'
    message = error_of(
        train,
        *(config, '--work-dir', tmp_path / 'w', '--cfg-options'),
        f'visualizer.vis_backends.0.type={kind}',
    )
    assert f'visualizer.vis_backends[0].type={kind} needs the pack' in message


def test_mixed_precision_without_a_gpu(tmp_path, monkeypatch):
    monkeypatch.setattr(sections, 'get_device', lambda: 'cpu')
    config = tiny.write_config(tmp_path / 'tiny.py')
    message = error_of(
        train,
        *(config, '--work-dir', tmp_path / 'w', '--cfg-options'),
        'optim_wrapper.type=AmpOptimWrapper',
    )
    assert 'optim_wrapper.type=AmpOptimWrapper needs a GPU' in message


def test_evaluator_with_arguments_of_another(tmp_path):
    message = error_of(
        train,
        *(tiny.write_config(tmp_path / 'tiny.py'), '--work-dir', tmp_path),
        *('--data-root', tiny.write_coco(tmp_path / 'coco')),
        *('--cfg-options', *tiny.SCALES, 'val_evaluator.type=VOCMetric'),
    )
    assert 'tiny.py cannot be built: VOCMetric' in message
    assert "unexpected keyword argument 'ann_file'" in message


def test_faults_keep_their_traceback():
    explained = sections.explained_late_build(Config())
    with pytest.raises(ValueError, match='a fault of ours') as error, explained:
        raise ValueError('a fault of ours')
    assert not isinstance(error.value, UserError)
    explained = sections.explained_late_build(Config())
    with pytest.raises(UserError, match='mAP_of_what'), explained:
        METRICS.build(dict(type='VOCMetric', metric='mAP_of_what x'))
