"""What our hooks leave on the disk, beside what mmengine's leave."""

import errno
import json

import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import Dataset

from mmdet_hetconv.comfort.training.hooks.whole_files import FirstLoggerHook
from mmdet_hetconv.utils import files
from mmdet_hetconv.workflow.checkpoints.checkpoint import is_complete, read_checkpoint
from mmdet_hetconv.workflow.config.configs import use_own_hooks

SCORES = (0.2, 0.5, 0.3, 0.6, 0.4)  # of the epochs


class Numbers(Dataset):
    metainfo = dict(classes=('a',))

    def __len__(self):
        return 2

    def __getitem__(self, number):
        return torch.tensor([float(number)])


class Line(BaseModel):
    def __init__(self):
        super().__init__()
        self.line = nn.Linear(1, 1)

    def forward(self, inputs, mode='tensor'):
        out = self.line(torch.stack(list(inputs)))
        return dict(loss=out.sum()) if mode == 'loss' else [out]


class Score(BaseMetric):
    """The epoch's score."""

    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        self.epoch = getattr(self, 'epoch', 0) + 1
        return dict(score=SCORES[self.epoch - 1])


def runner_of(work_dir, kind, epochs=5, **hook):
    """A training with one of the two checkpoint hooks."""
    loader = dict(dataset=Numbers(), sampler=dict(type='DefaultSampler'))
    return Runner(
        Line(),
        str(work_dir),
        train_dataloader=loader,
        val_dataloader=loader,
        test_dataloader=loader,
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        val_cfg={},
        test_cfg={},
        val_evaluator=[Score()],
        test_evaluator=[Score()],
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        param_scheduler=dict(type='MultiStepLR', milestones=[9]),
        default_hooks=dict(checkpoint={'type': kind, 'interval': 1, **hook}, logger=None),
        experiment_name=str(work_dir),
        log_level='ERROR',
    )


def run(*args, **hook):
    runner_of(*args, **hook).train()


def names(folder):
    return sorted(
        path.name
        for path in folder.iterdir()
        if path.is_file() and path.suffix != '.py'  # the config
    )


@pytest.mark.parametrize(
    'hook',
    [
        dict(),
        dict(max_keep_ckpts=1),
        dict(max_keep_ckpts=2, save_best='score', rule='greater'),
        dict(filename_tmpl='at_{}.pth', interval=2),
    ],
)
def test_as_mmengine(hook, tmp_path):
    """The same files in the end, with the same state of the training."""
    for kind in ('CheckpointHook', 'WholeCheckpointHook'):
        torch.manual_seed(0)
        run(tmp_path / kind, kind, **hook)
    stock, ours = (tmp_path / kind for kind in ('CheckpointHook', 'WholeCheckpointHook'))
    assert names(ours) == names(stock)
    for name in names(ours):
        if name == 'last_checkpoint':
            assert (ours / name).read_text() == (stock / name).read_text().replace(
                stock.name, ours.name
            )
            continue
        mine, theirs = (read_checkpoint(folder / name) for folder in (ours, stock))
        assert list(mine) == list(theirs)
        for key, value in theirs['state_dict'].items():
            assert torch.equal(mine['state_dict'][key], value)
        infos = [
            {
                key: str(value).replace(folder.name, '')
                for key, value in found['message_hub']['runtime_info'].items()
                if key not in ('cfg', 'experiment_name', 'seed', 'eta')
            }
            for found, folder in ((mine, ours), (theirs, stock))
        ]
        assert infos[0] == infos[1]


def test_the_old_one_goes_after_the_new_one_came(tmp_path, monkeypatch):
    """At every write, all that was there before is still there."""
    seen = []
    original = files.os.replace

    def replace(source, target):
        seen.append((target.name, names(tmp_path)))
        assert source.name == f'.{target.name}.part'
        if target.suffix == '.pth':
            assert is_complete(source)
        original(source, target)

    monkeypatch.setattr(files.os, 'replace', replace)
    run(
        tmp_path,
        'WholeCheckpointHook',
        epochs=2,
        max_keep_ckpts=1,
        save_best='score',
        rule='greater',
    )
    best = 'best_score_epoch_{}.pth'
    at = dict(reversed(seen))  # the first writing of each
    assert 'epoch_1.pth' in at['epoch_2.pth']
    assert best.format(1) in at[best.format(2)]
    assert names(tmp_path) == [best.format(2), 'epoch_2.pth', 'last_checkpoint']


@pytest.mark.parametrize('call', ['fsync', 'replace'])
def test_a_failing_disk_costs_nothing(call, tmp_path, monkeypatch):
    keep = dict(max_keep_ckpts=1, save_best='score', rule='greater')
    run(tmp_path, 'WholeCheckpointHook', epochs=1, **keep)
    before = {n: (tmp_path / n).read_bytes() for n in names(tmp_path)}

    def fail(*args):
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(files.os, call, fail)
    with pytest.raises(OSError, match='No space left') as caught:
        run(tmp_path, 'WholeCheckpointHook', epochs=1, **keep)
    assert caught.value.filename == str(tmp_path / 'epoch_1.pth')
    assert {n: (tmp_path / n).read_bytes() for n in names(tmp_path)} == before


def test_leftovers_of_a_killed_process_are_removed(tmp_path):
    (tmp_path / '.epoch_7.pth.part').write_bytes(b'half')
    (tmp_path / '.epoch_7.pth').write_bytes(b'of the user')
    run(tmp_path, 'WholeCheckpointHook', epochs=1)
    assert names(tmp_path) == ['.epoch_7.pth', 'epoch_1.pth', 'last_checkpoint']


def test_which_hooks_a_config_gets():
    cfg = Config(dict(model=dict()))
    use_own_hooks(cfg)
    assert cfg.default_hooks.checkpoint.type == 'WholeCheckpointHook'
    assert cfg.default_hooks.checkpoint.interval == 1
    assert cfg.default_hooks.logger.type == 'FirstLoggerHook'
    assert cfg.custom_imports == dict(imports=['mmdet_hetconv'])
    cfg = Config(
        dict(
            default_hooks=dict(
                checkpoint=dict(type='MyHook'), logger=None, timer=dict(type='IterTimerHook')
            ),
            custom_imports=dict(imports='mine', allow_failed_imports=True),
        )
    )
    use_own_hooks(cfg)
    use_own_hooks(cfg)
    assert cfg.default_hooks == dict(
        checkpoint=dict(type='MyHook'), logger=None, timer=dict(type='IterTimerHook')
    )
    assert cfg.custom_imports == dict(imports=['mine', 'mmdet_hetconv'], allow_failed_imports=True)


@pytest.mark.parametrize('rank', [0, 1])
def test_metrics_come_from_the_first_process(rank, tmp_path, monkeypatch):
    """mmengine's hook writes one file from every process."""
    runner = runner_of(tmp_path, 'WholeCheckpointHook')
    runner.test()
    hook = FirstLoggerHook()
    hook.before_run(runner)
    monkeypatch.setattr('mmengine.dist.utils.get_rank', lambda group: rank)
    hook.after_test_epoch(runner)
    written = [json.loads(p.read_text()) for p in tmp_path.glob('*/*.json')]
    assert [found['score'] for found in written] == [SCORES[0]] * (rank == 0)
