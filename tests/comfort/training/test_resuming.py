"""--resume under another rate, schedule or length."""

import logging

import pytest
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmdet_hetconv.comfort.training.hooks import resuming
from mmdet_hetconv.comfort.training.hooks.resuming import check_same_classes
from mmdet_hetconv.utils.errors import UserError
from mmdet_hetconv.workflow.checkpoints.checkpoint import read_checkpoint
from mmdet_hetconv.workflow.checkpoints.safe_globals import training_checkpoints

from .test_hooks import Line, Numbers

COSINE = dict(type='CosineAnnealingLR', by_epoch=True, convert_to_iter_based=True)
WARM_UP = dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=3)


class Named(Numbers):
    def __getitem__(self, number):
        return dict(inputs=super().__getitem__(number))


class Rates(Hook):
    def __init__(self):
        self.found = []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.found.append(runner.optim_wrapper.param_groups[0]['lr'])


def rates(work_dir, epochs, resume=None, schedulers=None, batch_size=1, **optimizer):
    """The rate at each step of a training; two images, so two steps an epoch."""
    hook = Rates()
    loader = dict(dataset=Named(), sampler=dict(type='DefaultSampler'), batch_size=batch_size)
    cfg = dict(
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(dict(type='SGD', lr=0.1, momentum=0.9), **optimizer)),
        param_scheduler=schedulers or [WARM_UP, dict(COSINE, T_max=epochs)],
    )
    runner = Runner(
        Line(),
        str(work_dir),
        train_dataloader=loader,
        **cfg,
        custom_hooks=[hook] + ([dict(type='ResumeHook')] if resume else []),
        default_hooks=dict(logger=None),
        experiment_name=f'{work_dir}{epochs}{resume}',
        log_level='ERROR',
        resume=bool(resume),
        load_from=str(resume) if resume else None,
        cfg=Config(dict(cfg, train_dataloader=dict(batch_size=batch_size))),
    )
    with training_checkpoints():
        runner.train()
    return hook.found


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr(resuming, 'announce', lambda text, *level: lines.append((text, *level)))
    return lines


@pytest.fixture
def two_epochs(tmp_path):
    rates(tmp_path / 'old', 2)
    return tmp_path / 'old' / 'epoch_2.pth'


def test_as_if_the_new_schedule_had_been_there_from_the_start(tmp_path, two_epochs, said):
    longer = rates(tmp_path / 'whole', 5)
    assert rates(tmp_path / 'rest', 5, two_epochs) == pytest.approx(longer[4:])
    ((text, level),) = said
    assert 'train_cfg.max_epochs is 5 (was 2)' in text
    assert 'param_scheduler[1].T_max is 5 (was 2)' in text
    assert f'goes on at {longer[4]:.4g}' in text and level == logging.WARNING


@pytest.mark.parametrize(
    'change, key',
    [
        (dict(lr=0.5), 'optim_wrapper.optimizer.lr is 0.5 (was 0.1)'),
        (dict(schedulers=[dict(type='MultiStepLR', milestones=[3])]), 'param_scheduler is '),
        (dict(type='RMSprop'), "optimizer.type is 'RMSprop' (was 'SGD')"),
    ],
)
def test_another_rate_schedule_and_optimizer(change, key, tmp_path, two_epochs, said):
    whole = rates(tmp_path / 'whole', 4, **change)
    assert rates(tmp_path / 'rest', 4, two_epochs, **change) == pytest.approx(whole[4:])
    assert key in said[0][0]


def test_another_batch_size_keeps_the_epoch(tmp_path, two_epochs, said):
    whole = rates(tmp_path / 'whole', 4, batch_size=2)
    assert rates(tmp_path / 'rest', 4, two_epochs, batch_size=2) == pytest.approx(whole[2:])
    assert 'train_dataloader.batch_size is 2 (was 1)' in said[0][0]


def test_nothing_is_said_where_nothing_changed(tmp_path, said):
    rates(tmp_path / 'whole', 2)
    content = read_checkpoint(tmp_path / 'whole' / 'epoch_1.pth')
    rest = rates(tmp_path / 'rest', 2, tmp_path / 'whole' / 'epoch_1.pth')
    assert len(rest) == 2 and not said
    assert rest[0] == content['optimizer']['param_groups'][0]['lr']
    rates(tmp_path / 'none', 2, tmp_path / 'whole' / 'epoch_2.pth')
    assert said == [('--resume: all epochs are done, train_cfg.max_epochs is 2',)]


@pytest.mark.parametrize(
    'now, refused', [(('b', 'a'), True), (('a', 'c'), False), (('a', 'b'), False)]
)
def test_classes(now, refused, said):
    dataset = dict(type='CocoDataset', metainfo=dict(classes=now))
    cfg = Config(dict(train_dataloader=dict(dataset=dataset)))
    content = dict(meta=dict(dataset_meta=dict(classes=('a', 'b'))))
    if refused:
        with pytest.raises(UserError, match=r"classes 'a', 'b', train.* the order 'b', 'a'"):
            check_same_classes(content, cfg, 'x.pth')
    else:
        check_same_classes(content, cfg, 'x.pth')
        assert len(said) == (now == ('a', 'c'))
