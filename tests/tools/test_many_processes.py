"""Two processes on CPUs do what one does with the double batch."""

import json
import os
import pickle
import re
import socket
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch

from mmdet_hetconv.workflow.checkpoints.checkpoint import read_checkpoint
from tests import tiny

from . import forks
from .entry import TOOLS, evaluate, train

# FCOS divides its losses by what all processes have, as one does with their
# images together. Batch statistics would differ, so they are fixed.
CONFIG = """
_base_ = 'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py'
custom_imports = dict(
    imports=['mmdet_hetconv', 'recorder'], allow_failed_imports=False)
custom_hooks = [dict(type='Recorder')]
model = dict(
    backbone=dict(
        depth=18,
        base_channels=16,
        frozen_stages=-1,
        norm_eval=True,
        init_cfg=None,
        conv_cfg=dict(type='HetConv', p=4),
    ),
    neck=dict(in_channels=[16, 32, 64, 128], out_channels=32),
    bbox_head=dict(
        in_channels=32, feat_channels=32, stacked_convs=1, norm_cfg=None
    ),
    test_cfg=dict(score_thr=0.0, max_per_img=20),
)
train_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    sampler=dict(shuffle=False),
    batch_sampler=None,
)
val_dataloader = dict(num_workers=0, persistent_workers=False)
test_dataloader = dict(num_workers=0, persistent_workers=False)
optim_wrapper = dict(optimizer=dict(lr=0.001))
val_cfg = None
val_dataloader = None
val_evaluator = None
train_cfg = dict(max_epochs=2, val_interval=9)
param_scheduler = []
randomness = dict(seed=7, deterministic=True)
"""
RECORDER = """
import atexit
import json
import os
from pathlib import Path

import torch
from mmengine.dist import barrier, get_rank
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS


@HOOKS.register_module()
class Recorder(Hook):
    priority = 'LOWEST'

    def before_train(self, runner):
        self.losses = []

    def after_train_iter(self, runner, batch_idx, data_batch, outputs):
        self.losses.append({k: v.item() for k, v in outputs.items()})

    def after_train(self, runner):
        model = runner.model
        model = model.module if is_model_wrapper(model) else model
        place = Path(runner.work_dir) / f'rank_{get_rank()}'
        torch.save(model.state_dict(), f'{place}.weights')
        place.with_suffix('.json').write_text(json.dumps(self.losses))
        if os.environ.get('BREAK'):
            barrier()
            if get_rank() == 1:
                raise RuntimeError('process 1 is out of order')
            barrier()  # would wait for ever


@atexit.register
def name_threads():
    if 'THREADS' in os.environ:
        tasks = Path('/proc/self/task').iterdir()
        names = [(task / 'comm').read_text().strip() for task in tasks]
        place = Path(os.environ['THREADS'] + os.environ['RANK'])
        place.write_text(json.dumps(names))
"""


class World:
    def __init__(self, path):
        self.path = path
        self.data = tiny.write_coco(path / 'coco')
        # One process has more boxes to learn from than the other.
        file = self.data / 'annotations' / 'instances_train2017.json'
        content = json.loads(file.read_text())
        del content['annotations'][2]
        file.write_text(json.dumps(content))
        self.config = path / 'tiny.py'
        self.config.write_text(CONFIG)
        (path / 'recorder.py').write_text(RECORDER)

    def argv(self, work, *pairs):
        return [
            *('--data-root', self.data, '--work-dir', self.path / work),
            *('--cfg-options', *tiny.SCALES[:1], tiny.SCALES[2]),
            *('train_dataloader.dataset.pipeline.3.prob=0.0', *pairs),
        ]

    def alone(self, main, argv):
        """Run a tool in one process."""
        log = self.path / 'log'
        status = forks.finish(forks.start(main, argv, log, self.prepare))
        assert status == 0, log.read_text()

    def prepare(self):
        sys.path.insert(0, str(self.path))

    def together(self, script, argv, **env):
        """Run a tool in two processes; status and output."""
        with socket.socket() as free:
            free.bind(('127.0.0.1', 0))
            port = free.getsockname()[1]
        env = {
            **os.environ,
            'PYTHONPATH': str(self.path),
            'CUDA_VISIBLE_DEVICES': '',
            'OMP_NUM_THREADS': '1',
            'PYTHON': sys.executable,
            'PORT': str(port),
            **env,
        }
        done = subprocess.run(
            [TOOLS / script, *map(str, argv)],
            env=env,
            cwd=self.path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
        )
        return done.returncode, done.stdout


@pytest.fixture(scope='module')
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp('many'))


@pytest.fixture(scope='module')
def trainings(world):
    """A dense start, then one process and two; the two break at the end."""
    no_het = 'model.backbone.conv_cfg=None'
    world.alone(train, [world.config, *world.argv('dense', no_het)])
    start = f'load_from={world.path}/dense/epoch_2.pth'
    double = 'train_dataloader.batch_size=4'
    world.alone(train, [world.config, *world.argv('one', start, double)])
    argv = [world.config, 2, *world.argv('two', start)]
    status, output = world.together('dist_train.sh', argv, BREAK='1')
    losses = [
        json.loads((world.path / name).read_text())
        for name in ('one/rank_0.json', 'two/rank_0.json', 'two/rank_1.json')
    ]
    return SimpleNamespace(status=status, output=output, end=time.time(), losses=losses)


def weights(path):
    content = read_checkpoint(path)
    return content.get('state_dict', content)


pytestmark = forks.cannot_fork


def test_losses(trainings):
    """Each step's losses are the mean of those of both processes."""
    alone, first, second = trainings.losses
    assert len(alone) == len(first) == len(second) == 4
    for whole, one, two in zip(alone, first, second):
        assert set(whole) == {'loss', 'loss_bbox', 'loss_cls', 'loss_centerness'}
        for key, value in whole.items():
            mean = (one[key] + two[key]) / 2
            assert mean == pytest.approx(value, rel=2e-5), key
    # They saw different images, and learnt.
    assert first[0]['loss'] != pytest.approx(second[0]['loss'], rel=1e-3)
    assert alone[2]['loss'] < alone[0]['loss']


def test_weights(world, trainings):
    """Equal in both processes; those of one process, to rounding."""
    one = weights(world.path / 'one' / 'epoch_2.pth')
    two = weights(world.path / 'two' / 'epoch_2.pth')
    ranks = [weights(world.path / f'two/rank_{r}.weights') for r in (0, 1)]
    start = weights(world.path / 'two' / 'epoch_1.pth')
    moved = 0
    for key, value in two.items():
        assert torch.equal(ranks[0][key], value), key
        assert torch.equal(ranks[1][key], value), key
        torch.testing.assert_close(value, one[key], rtol=1e-4, atol=1e-6)
        moved += not torch.equal(value, start[key])
    assert moved > 20


def test_messages_come_once(world, trainings):
    messages = re.findall(r'- (?:INFO|WARNING) - (.+)', trainings.output)
    for start in (
        'COCO layout in',
        'HetConv: dense weights are projected',
        'Saving checkpoint at 2 epochs',
    ):
        found = [line for line in messages if line.startswith(start)]
        assert len(found) == len(set(found)) > 0, (start, found)
    assert sum('dense weights are projected' in line for line in messages) == 1


def test_a_process_that_dies_ends_the_other(world, trainings):
    assert trainings.status != 0
    assert 'RuntimeError: process 1 is out of order' in trainings.output
    alive = (world.path / 'two' / 'rank_1.json').stat().st_mtime
    assert trainings.end - alive < 60


def call_true(world, predictions):
    """Make some of the predictions the truth: so few steps learn little."""
    file = world.data / 'annotations' / 'instances_val2017.json'
    content = json.loads(file.read_text())
    content['annotations'].clear()
    for image in predictions:
        found = image['pred_instances']
        for box, label in zip(found['bboxes'][1:8:2], found['labels'][1:8:2]):
            x1, y1, x2, y2 = box.tolist()
            content['annotations'].append(
                dict(
                    id=len(content['annotations']) + 1,
                    image_id=image['img_id'],
                    category_id=content['categories'][label]['id'],
                    bbox=[x1, y1, x2 - x1, y2 - y1],
                    area=(x2 - x1) * (y2 - y1),
                    iscrowd=0,
                )
            )
    file.write_text(json.dumps(content))


def test_evaluation(world, trainings):
    """Three images on two processes: one is padded, and dropped again."""
    checkpoint = world.path / 'one' / 'epoch_2.pth'

    def argv(work):
        out = ('--out', world.path / f'{work}.pkl')
        return *out, *world.argv(work)

    def predictions(work):
        return pickle.loads((world.path / f'{work}.pkl').read_bytes())

    world.alone(evaluate, [world.config, checkpoint, *argv('first')])
    call_true(world, predictions('first'))
    world.alone(evaluate, [world.config, checkpoint, *argv('alone')])
    status, output = world.together(
        'dist_test.sh',
        [world.config, checkpoint, 2, *argv('both')],
        THREADS=str(world.path / 'threads_'),
    )
    assert status == 0, output[-3000:]
    # Those of a process group may abort a process as Python shuts down.
    for rank in (0, 1):
        threads = json.loads((world.path / f'threads_{rank}').read_text())
        assert threads and not any('gloo' in name for name in threads)
    metrics = []
    for work in ('alone', 'both'):
        (path,) = (world.path / work).glob('*/*.json')
        metrics.append(json.loads(path.read_text()))
    for key in ('coco/bbox_mAP', 'coco/bbox_mAP_50'):
        assert metrics[0][key] == metrics[1][key] > 0.1
    alone, both = predictions('alone'), predictions('both')
    assert len(alone) == len(both) == tiny.SPLITS['val']
    for one, other in zip(alone, both):
        assert one['img_id'] == other['img_id']
        for key in ('bboxes', 'scores', 'labels'):
            torch.testing.assert_close(one['pred_instances'][key], other['pred_instances'][key])
    messages = re.findall(r'- (?:INFO|WARNING) - (.+)', output)
    for start in ('COCO layout in', 'HetConv: ', 'Epoch(test) '):
        found = [line for line in messages if line.startswith(start)]
        assert len(found) == len(set(found)), found


LAUNCHERS = {
    'slurm': dict(
        SLURM_PROCID='1',
        SLURM_NTASKS='2',
        SLURM_LOCALID='1',
        SLURM_NODELIST='node[1-2]',
        MASTER_ADDR='node1',
    ),
    'mpi': dict(
        OMPI_COMM_WORLD_RANK='1',
        OMPI_COMM_WORLD_LOCAL_RANK='1',
        OMPI_COMM_WORLD_SIZE='2',
        MASTER_ADDR='node1',
    ),
    'pytorch': dict(RANK='1', LOCAL_RANK='1', WORLD_SIZE='2'),
}


@pytest.mark.parametrize('launcher', LAUNCHERS)
def test_launchers(launcher, world, tmp_path):
    """What mmengine is told; there is no GPU here to go further."""

    def pretend():
        from mmdet_hetconv.comfort.training import processes

        def start(backend, **rest):
            names = ('RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'MASTER_ADDR')
            print({'backend': backend, **rest})
            print({n: os.environ[n] for n in names if n in os.environ})
            raise SystemExit('started')

        world.prepare()
        processes.get_device = lambda: 'cuda'
        torch.cuda.set_device = lambda number: print('device', number)
        torch.distributed.init_process_group = start

    argv = [world.config, *world.argv('launched'), '--launcher', launcher]
    log = tmp_path / 'log'
    pid = forks.start(train, argv, log, pretend, LAUNCHERS[launcher])
    assert forks.finish(pid) == 1
    lines = log.read_text().splitlines()
    assert lines[-4:-2] == ['device 1', "{'backend': 'nccl'}"]
    place = json.loads(lines[-2].replace("'", '"'))
    assert (place['RANK'], place['WORLD_SIZE']) == ('1', '2')
    assert place.get('MASTER_ADDR') == LAUNCHERS[launcher].get('MASTER_ADDR')
    # Not the first process: it announces nothing.
    assert not any('COCO layout' in line for line in lines)
