"""kill -9 and full disks: what is on the disk stays good, --resume goes on.

The suite kills a few times; ``KILLS=20 pytest tests/tools/test_crash.py``
as often as one likes, at moments drawn anew with ``SEED``.
"""

import contextlib
import os
import random
import re
import resource
import shutil
import signal
import time
from functools import partial

import pytest
import torch

from mmdet_hetconv.utils import files
from mmdet_hetconv.workflow.checkpoints.checkpoint import is_complete, read_checkpoint
from tests import tiny

from . import forks
from .entry import train

KILLS = int(os.environ.get('KILLS', 2))
SEED = int(os.environ.get('SEED', 0))
pytestmark = forks.cannot_fork

# All anchors and proposals are sampled: a step has nothing random in it, and
# mmengine does not restore the state of random generators.
CONFIG = """
model['train_cfg']['rpn'] = dict(sampler=dict(num=4096))
model['train_cfg']['rcnn'] = dict(sampler=dict(num=64))
train_cfg.update(max_epochs=3, val_interval=9)
default_hooks['checkpoint'] = dict(max_keep_ckpts=2)
"""
# For each checkpoint: itself, its folder, the note of its name, the folder.
SYNCS = 4 * 3


class World:
    def __init__(self, path):
        self.path = path
        self.data = tiny.write_coco(path / 'coco')
        self.config = tiny.write_config(path / 'tiny.py', CONFIG)
        self.log = path / 'log'

    def start(self, work, *more, prepare=None):
        argv = [
            *(self.config, '--data-root', self.data, '--work-dir', work),
            *more,
            *('--cfg-options', *tiny.SCALES),
            'train_dataloader.dataset.pipeline.3.prob=0.0',
        ]
        return forks.start(train, argv, self.log, prepare)

    def run(self, work, *more, prepare=None):
        return forks.finish(self.start(work, *more, prepare=prepare))


@pytest.fixture(scope='module')
def world(tmp_path_factory):
    world = World(tmp_path_factory.mktemp('crash'))
    start = time.monotonic()
    assert world.run(world.path / 'whole') == 0, world.log.read_text()
    world.seconds = time.monotonic() - start
    return world


def die_at_sync(number):
    """Die with half of a file written, where files are forced to the disk."""
    calls = 0

    def fsync(descriptor):
        nonlocal calls
        if calls == number:
            with contextlib.suppress(OSError):  # a folder
                half = os.fstat(descriptor).st_size // 2
                os.ftruncate(descriptor, half)
            os.kill(os.getpid(), signal.SIGKILL)
        calls += 1

    files.os.fsync = fsync


def moments():
    """Half of them anywhere, half of them while something is written."""
    draw = random.Random(SEED)
    for number in range(KILLS):
        if number % 2:
            yield 'while writing', draw.randrange(SYNCS)
        else:
            yield 'anywhere', draw.random()


def check_finished(world, work):
    """A finished training is there, equal to the uninterrupted one."""
    assert sorted(p.name for p in work.glob('*.pth')) == ['epoch_2.pth', 'epoch_3.pth']
    assert not list(work.glob('.*'))
    assert (work / 'last_checkpoint').read_text() == str(work / 'epoch_3.pth')
    ours, whole = (
        read_checkpoint(folder / 'epoch_3.pth') for folder in (work, world.path / 'whole')
    )
    assert ours['meta']['iter'] == whole['meta']['iter'] == 9
    for key, value in whole['state_dict'].items():
        assert torch.equal(ours['state_dict'][key], value), key


@pytest.mark.parametrize('kind, when', list(moments()))
def test_kill(world, tmp_path, kind, when):
    work = tmp_path / 'work'
    if kind == 'anywhere':
        pid = world.start(work)
        time.sleep(when * world.seconds)
        os.kill(pid, signal.SIGKILL)
        status = forks.finish(pid)
        assert status in (-signal.SIGKILL, 0)  # it may just have finished
    else:
        died = world.run(work, prepare=partial(die_at_sync, when))
        assert died == -signal.SIGKILL
    # Whoever looks for *.pth finds complete ones only.
    found = sorted(work.glob('*.pth'))
    assert all(map(is_complete, found))
    assert world.run(work, '--resume') == 0, world.log.read_text()
    text = world.log.read_text()
    assert 'is incomplete' not in text
    assert bool(found) == ('resumed epoch' in text)
    check_finished(world, work)


@pytest.mark.parametrize('saved', [False, True])
def test_full_disk(world, tmp_path, saved):
    work = tmp_path / 'work'
    work.mkdir()
    if saved:
        shutil.copy(world.path / 'whole' / 'epoch_2.pth', work)
    room = (100_000, 100_000)  # more than a log, less than a checkpoint
    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, room)
    assert world.run(work, '--resume', prepare=limit) == 1
    text = world.log.read_text()
    (line,) = re.findall('^train.py: error: .*', text, re.MULTILINE)
    rest = (
        f'{work}/epoch_2.pth is the last complete checkpoint, --resume goes on'
        if saved
        else 'no checkpoint was saved'
    )
    name = 'epoch_3.pth' if saved else 'epoch_1.pth'
    assert line == (f'train.py: error: {work}/{name} cannot be written: File too large; ' + rest)
    assert 'Traceback' not in text
    assert not list(work.glob('.*')) and len([*work.glob('*.pth')]) == saved
