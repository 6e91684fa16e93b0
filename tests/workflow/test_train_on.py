"""The config with which a converted detector is trained on."""

from pathlib import Path

from mmengine.config import Config

from mmdet_hetconv.workflow.slimming.train_on import train_on


def merged(tmp_path, **keys) -> Config:
    cfg = Config(dict(model=dict(), **keys))
    (tmp_path / 'converted.py').write_text(cfg.pretty_text)
    (tmp_path / 'train_on.py').write_text(train_on(tmp_path, cfg, 'int8', Path('/a/dense.pth')))
    return Config.fromfile(tmp_path / 'train_on.py')


def test_a_schedule_of_epochs(tmp_path):
    cfg = merged(
        tmp_path,
        train_cfg=dict(type='EpochBasedTrainLoop', max_epochs=24, dynamic_intervals=[(20, 1)]),
        param_scheduler=[dict(type='LinearLR', end=500), dict(type='MultiStepLR', milestones=[8])],
        optim_wrapper=dict(type='AmpOptimWrapper', optimizer=dict(type='SGD', lr=0.02)),
        custom_hooks=[dict(type='EMAHook')],
    )
    assert cfg.train_cfg == dict(type='EpochBasedTrainLoop', max_epochs=1, val_interval=1)
    assert [step.type for step in cfg.param_scheduler] == ['CosineAnnealingLR']
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper'
    assert cfg.optim_wrapper.optimizer == dict(type='SGD', lr=0.002)
    assert [hook.type for hook in cfg.custom_hooks] == ['EMAHook', 'TeacherHook']
    assert cfg.custom_hooks[1].checkpoint == '/a/dense.pth'
    assert '--precision int8' in (tmp_path / 'train_on.py').read_text()


def test_a_schedule_of_iterations(tmp_path):
    """Its sampler never ends, and neither would an epoch."""
    cfg = merged(
        tmp_path,
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=90000, val_interval=10000),
        train_dataloader=dict(batch_size=2, sampler=dict(type='InfiniteSampler', shuffle=True)),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=10000)),
        log_processor=dict(type='LogProcessor', by_epoch=False),
    )
    assert cfg.train_cfg == dict(type='EpochBasedTrainLoop', max_epochs=1, val_interval=1)
    assert cfg.train_dataloader.sampler == dict(type='DefaultSampler', shuffle=True)
    assert cfg.default_hooks.checkpoint == dict(type='CheckpointHook', by_epoch=True, interval=1)
    assert cfg.log_processor.by_epoch
