"""--epochs and --batch-size."""

from types import SimpleNamespace

import pytest
from mmengine.config import Config, ConfigDict

from mmdet_hetconv.comfort.training import schedule
from mmdet_hetconv.comfort.training.schedule import set_batch_size, set_epochs, shorten_warm_up
from mmdet_hetconv.utils.errors import UserError
from mmdet_hetconv.workflow.config.configs import read_config
from mmdet_hetconv.zoo import CONFIGS


@pytest.fixture
def said(monkeypatch):
    found = []
    monkeypatch.setattr(schedule, 'announce', lambda *words: found.append(words[0]))
    return found


def read(name='faster_rcnn_het_r18_scratch'):
    return read_config(str(CONFIGS / f'{name}.py'))


@pytest.mark.parametrize(
    'epochs, milestones', [(24, [16, 22]), (12, [8, 11]), (3, [2]), (2, [1]), (1, [])]
)
def test_the_schedule_keeps_its_shape(epochs, milestones):
    cfg = read()
    set_epochs(cfg, epochs)
    warm_up, steps = cfg.param_scheduler
    assert cfg.train_cfg.max_epochs == steps.end == epochs
    assert steps.milestones == milestones
    assert warm_up.end == 500  # of iterations


def test_what_else_is_counted_in_epochs():
    cfg = Config(
        dict(
            train_cfg=dict(max_epochs=300, val_interval=10, dynamic_intervals=[(280, 1)]),
            param_scheduler=dict(type='CosineAnnealingLR', begin=5, T_max=285, end=285),
            custom_hooks=[dict(type='YOLOXModeSwitchHook', num_last_epochs=15, priority=48)],
            default_hooks=dict(checkpoint=dict(interval=10)),
        )
    )
    set_epochs(cfg, 6)
    assert cfg.train_cfg == dict(max_epochs=6, val_interval=6, dynamic_intervals=[(6, 1)])
    part = cfg.param_scheduler
    assert (part.begin, part.T_max, part.end) == (1, 6, 6)
    assert cfg.custom_hooks[0].num_last_epochs == 1 and cfg.custom_hooks[0].priority == 48
    assert cfg.default_hooks.checkpoint.interval == 6


def test_iterations_are_no_epochs():
    cfg = Config(dict(train_cfg=dict(type='IterBasedTrainLoop', max_iters=90)))
    with pytest.raises(UserError, match='counts iterations, max_iters=90'):
        set_epochs(cfg, 3)


def test_the_batch_and_its_rate(said):
    cfg = read()
    set_batch_size(cfg, 4, scales_rate=False)
    assert cfg.train_dataloader.batch_size == 4
    assert '--batch-size 4: the learning rate is made for 16 images' in said[0]
    set_batch_size(cfg, 4, scales_rate=True)
    set_batch_size(cfg, 16, scales_rate=False)
    assert len(said) == 1


@pytest.mark.parametrize('steps, end', [(300, 30), (5000, 500), (4, 2)])
def test_a_warm_up_is_a_tenth_at_most(steps, end, said):
    parts = [
        ConfigDict(type='LinearLR', by_epoch=False, begin=0, end=500),
        ConfigDict(type='CosineAnnealingLR', by_epoch=False, end=5000),
    ]
    runner = SimpleNamespace(train_loop=SimpleNamespace(max_iters=steps), param_schedulers=parts)
    shorten_warm_up(runner)
    assert [part.end for part in parts] == [end, 5000]
    assert len(said) == (end != 500)
