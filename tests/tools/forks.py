"""Tools in processes of their own, without importing everything again.

A child of the test process has mmdet in memory at once; a new Python takes
five seconds for it.
"""

import os
import sys
import time
import traceback

import pytest
import torch

# CUDA does not survive a fork.
cannot_fork = pytest.mark.skipif(
    torch.cuda.is_available(), reason='children of a process with CUDA fail'
)


def start(main, argv, log, prepare=None, env=None):
    """Run main(argv) in a child; its process id.

    Args:
        main: of a tool.
        argv: its arguments.
        log: the file for what it prints.
        prepare: called in the child first.
        env: environment variables of the child.
    """
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    status = 2
    try:
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(out, 1)
        os.dup2(out, 2)
        sys.stdout = sys.stderr = os.fdopen(1, 'w', 1, closefd=False)
        os.environ.update(env or {})
        # The threads of OpenMP are not there after a fork.
        torch.set_num_threads(1)
        if prepare:
            prepare()
        main([str(word) for word in argv])
        status = 0
    except SystemExit as stop:
        print(stop.code)
        status = 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)  # nothing of pytest's own


def finish(pid, seconds=600):
    """The exit status of a child, minus the signal that ended it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    raise AssertionError(f'no end after {seconds} s')
