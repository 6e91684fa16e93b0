"""How much memory a run needs at its peak."""

from collections.abc import Callable
from pathlib import Path

import torch

from ..deploy import hand_back_freed_memory


def peak_memory(run: Callable[[], object], device: str) -> float:
    """MiB that a run needs beside what was held before it.

    On the CPU that is resident memory of the process, as Linux tells it; what
    the allocator keeps from earlier runs is handed back first.

    Args:
        device: 'cpu' or 'cuda'.

    Returns:
        0 if the system does not tell.
    """
    if torch.device(device).type != 'cpu':
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    hand_back_freed_memory()
    try:
        Path('/proc/self/clear_refs').write_text('5')  # resets VmHWM
        before = _status('VmRSS')
        run()
        return max(0.0, _status('VmHWM') - before)
    except OSError:
        run()
        return 0.0


def _status(key: str) -> float:
    """A line of /proc/self/status, MiB."""
    for line in Path('/proc/self/status').read_text().splitlines():
        if line.startswith(key + ':'):
            return int(line.split()[1]) / 1024
    return 0.0
