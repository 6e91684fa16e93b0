"""Freed memory is kept, and handed back when asked for."""

import subprocess
import sys

import pytest

from mmdet_hetconv.deploy import keep_freed_memory

PROGRAM = """
import torch
from mmdet_hetconv.deploy import hand_back_freed_memory, keep_freed_memory

def resident():
    for line in open('/proc/self/status'):
        if line.startswith('VmRSS'):
            return int(line.split()[1]) / 1024

if {keep}:
    keep_freed_memory()
before = resident()
tensor = torch.ones(64, 1024, 1024)
del tensor
kept = resident() - before
hand_back_freed_memory()
print(round(kept), round(resident() - before))
"""


@pytest.mark.parametrize('keep', [True, False])
def test_a_freed_tensor_stays_until_it_is_handed_back(keep):
    # In a process of its own: the setting holds for a whole process.
    printed = subprocess.run(
        [sys.executable, '-c', PROGRAM.format(keep=keep)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    kept, left = map(int, printed.split())
    assert left < 64
    assert (kept > 200) == keep


def test_without_glibc_nothing_is_changed(monkeypatch):
    monkeypatch.setattr('ctypes.CDLL', lambda name: object())
    assert not keep_freed_memory()
