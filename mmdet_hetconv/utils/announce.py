"""Log lines that appear once, however many processes run."""

import logging
import os

from mmengine.logging import print_log

# Environment variables in which launchers give a process its rank.
_RANK_VARIABLES = ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK')


def is_first_process() -> bool:
    """Whether this process has rank 0; works before a process group exists."""
    ranks = (os.environ.get(name) for name in _RANK_VARIABLES)
    return next((r for r in ranks if r is not None), '0') == '0'


def announce(message: str, level: int = logging.INFO) -> None:
    """Log a message on rank 0 only; works before a process group exists."""
    if is_first_process():
        print_log(message, 'current', level)
