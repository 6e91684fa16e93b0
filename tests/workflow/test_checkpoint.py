"""What a checkpoint may hold, and which one a training goes on from."""

import os
import re
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from torch import nn

from mmdet_hetconv.layers import HetConv2d
from mmdet_hetconv.utils.errors import UserError
from mmdet_hetconv.workflow.checkpoints.checkpoint import (
    load_weights,
    newest_checkpoint,
    read_checkpoint,
)


def content():
    """As in a training checkpoint of mmengine 0.10.7."""
    history = HistoryBuffer([1.5, 0.5], [1, 1])
    history.update(0.25, 2)
    return dict(
        meta=dict(epoch=1, iter=3, dataset_meta=dict(classes=('a', 'b'))),
        state_dict={'weight': torch.arange(3.0)},
        message_hub=dict(
            log_scalars={'train/loss': history},
            runtime_info={'best': np.float64(0.5), 'small': np.float32(0.5)},
            resumed_keys={},
        ),
        optimizer=dict(state={}, param_groups=[dict(lr=0.1)]),
        param_schedulers=[dict(last_step=3)],
    )


def rename_in_pickle(source, target, old, new):
    """A copy of a checkpoint with another text in its pickle."""
    with zipfile.ZipFile(source) as read, zipfile.ZipFile(target, 'w') as to:
        for name in read.namelist():
            data = read.read(name)
            if name.endswith('data.pkl'):
                assert old in data
                data = data.replace(old, new)
            to.writestr(name, data)


@pytest.mark.parametrize('home', [b'numpy.core', b'numpy._core'])
def test_a_training_checkpoint_is_read(home, tmp_path):
    """Written with numpy 1.x or 2.x, whichever is installed here."""
    torch.save(content(), tmp_path / 'here.pth')
    (ours,) = set(
        re.findall(rb'numpy\._?core', zipfile.ZipFile(tmp_path / 'here.pth').read('here/data.pkl'))
    )
    rename_in_pickle(
        tmp_path / 'here.pth', tmp_path / 'there.pth', ours + b'.multiarray', home + b'.multiarray'
    )
    found = read_checkpoint(tmp_path / 'there.pth')
    assert torch.equal(found['state_dict']['weight'], torch.arange(3.0))
    history = found['message_hub']['log_scalars']['train/loss']
    assert isinstance(history, HistoryBuffer)
    assert history.current() == 0.25
    assert (history.min(), history.max()) == (0.25, 1.5)
    assert found['message_hub']['runtime_info'] == dict(best=0.5, small=0.5)


def test_torchs_list_is_as_before(tmp_path):
    """A library must not change what its user's files may hold."""
    torch.save(content(), tmp_path / 'a.pth')
    with torch.serialization.safe_globals([HistoryBuffer, np.ndarray]):
        before = set(torch.serialization.get_safe_globals())
        history = read_checkpoint(tmp_path / 'a.pth')['message_hub']
        assert set(torch.serialization.get_safe_globals()) == before
    assert history['log_scalars']['train/loss'].current() == 0.25


def test_import_leaves_torchs_list_alone():
    program = (
        'import torch, mmdet_hetconv\n'
        'from mmengine.logging import HistoryBuffer\n'
        'allowed = torch.serialization.get_safe_globals()\n'
        'assert HistoryBuffer not in allowed\n'
        'assert not any(isinstance(entry, tuple) for entry in allowed)\n'
    )
    subprocess.run([sys.executable, '-c', program], check=True)


class Call:
    """Unpickling it calls a function."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    'call, named',
    [
        (Call(os.mkdir, 'owned'), 'posix.mkdir'),
        (Call(eval, '1'), 'eval'),
        (Call(getattr, HistoryBuffer, '__init__'), 'getattr'),
        (Call(getattr, HistoryBuffer, '__reduce_ex__'), 'getattr'),
        (Call(getattr, np.ndarray, 'tofile'), 'getattr'),
        (Call(getattr, 'text', 'format'), 'getattr'),
    ],
)
def test_nothing_else_is_read(call, named, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({**content(), 'extra': call}, tmp_path / 'a.pth')
    with pytest.raises(UserError, match=f'a.pth is refused: .*{named}'):
        read_checkpoint(tmp_path / 'a.pth')
    assert not (tmp_path / 'owned').exists()


def test_the_protection_of_torch_stays_on(tmp_path):
    torch.save(dict(x=Call(os.mkdir, str(tmp_path / 'b'))), tmp_path / 'a.pth')
    with pytest.raises(Exception, match='posix'):
        torch.load(tmp_path / 'a.pth')
    assert not (tmp_path / 'b').exists()


def write(path, age, keep=None):
    """A checkpoint as old as this many seconds; keep: that many bytes."""
    torch.save(dict(weight=torch.zeros(100)), path)
    if keep is not None:
        path.write_bytes(path.read_bytes()[:keep])
    os.utime(path, (1e9 - age, 1e9 - age))
    return path


def test_newest_checkpoint(tmp_path):
    assert newest_checkpoint(tmp_path) is None
    assert newest_checkpoint(tmp_path / 'nowhere') is None
    first = write(tmp_path / 'epoch_1.pth', 30)
    second = write(tmp_path / 'epoch_2.pth', 20)
    third = write(tmp_path / 'epoch_10.pth', 10)
    write(tmp_path / 'best_coco_bbox_mAP_epoch_2.pth', 0)
    note = tmp_path / 'last_checkpoint'
    assert newest_checkpoint(tmp_path) == third
    note.write_text(str(second))
    assert newest_checkpoint(tmp_path) == second
    note.write_text('')  # killed while writing it
    assert newest_checkpoint(tmp_path) == third
    note.write_text(str(third))
    write(third, 5, keep=900)
    assert newest_checkpoint(tmp_path) == second
    write(second, 5, keep=0)
    assert newest_checkpoint(tmp_path) == first
    first.write_bytes(b'PK\x03\x04')
    assert newest_checkpoint(tmp_path) is None


def test_a_changed_byte_is_noticed(tmp_path):
    write(tmp_path / 'epoch_1.pth', 30)
    path = tmp_path / 'epoch_2.pth'
    torch.save(dict(weight=torch.full((1000,), 0.1)), path)
    data = bytearray(path.read_bytes())
    place = data.index(np.float32(0.1).tobytes() * 8)
    data[place] ^= 1
    path.write_bytes(data)
    assert newest_checkpoint(tmp_path).name == 'epoch_1.pth'


def test_weights_that_fit():
    model = nn.Sequential(HetConv2d(8, 8, 3, p=4), nn.BatchNorm2d(8))
    other = nn.Sequential(HetConv2d(8, 8, 3, p=4), nn.BatchNorm2d(8))
    state = {f'module.{k}': v for k, v in other.state_dict().items()}
    load_weights(model, dict(state_dict=state), 'a.pth')
    for key, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[key]), key


def test_weights_that_do_not_fit():
    model = nn.Sequential(HetConv2d(8, 8, 3, p=4))
    for other, text in (
        (HetConv2d(8, 8, 3, p=2), '0 has p=2 in the checkpoint and p=4 here'),
        (HetConv2d(8, 8, 3, p=4, arrangement='shifted'), "'shifted' in the"),
        (HetConv2d(8, 8, 3, p=4, arrangement='permuted'), "'permuted' in the"),
        (HetConv2d(16, 16, 3, p=4), 'size mismatch for 0.grouped.weight'),
        (nn.Conv2d(8, 8, 5), 'dense weight of shape'),
        (nn.ReLU(), '0.grouped.weight is missing'),
    ):
        state = nn.Sequential(other).state_dict()
        with pytest.raises(UserError, match=re.escape(text)):
            load_weights(model, state, 'a.pth')
