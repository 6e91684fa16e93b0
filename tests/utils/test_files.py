"""Files that are there in full or not at all: what a full disk leaves."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
# In a process of its own: what went wrong here was a segmentation fault.
PROGRAM = """
import errno, gc, os, sys
import torch
from mmdet_hetconv.utils import files
from mmdet_hetconv.utils.errors import UserError

def no_space(descriptor):
    raise OSError(errno.ENOSPC, 'No space left')

def save():
    try:
        files.save_whole(dict(a=torch.zeros(1000)), sys.argv[1])
    except UserError as error:
        print(error)
        cycle = [error]  # as an error's own traceback often is one
        cycle.append(cycle)

os.fsync = no_space
save()
gc.collect()
print('alive')
"""


def test_an_error_of_a_full_disk_can_be_collected(tmp_path):
    path = tmp_path / 'a.pth'
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', PROGRAM, str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    message = f'{path} cannot be written: No space left\nalive\n'
    assert (done.returncode, done.stdout) == (0, message), done.stderr
    assert not list(tmp_path.iterdir())
