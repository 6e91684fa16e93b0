"""Log lines that come once, however many processes there are."""

import logging
import os

from mmengine.logging import print_log

# Under which name each launcher tells a process its rank.
_RANK_VARIABLES = ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK')


def is_first_process() -> bool:
    """Whether this is rank 0, also before there is a process group."""
    ranks = (os.environ.get(name) for name in _RANK_VARIABLES)
    return next((r for r in ranks if r is not None), '0') == '0'


def announce(message: str, level: int = logging.INFO) -> None:
    """Log once for all processes, also before there is a process group."""
    if is_first_process():
        print_log(message, 'current', level)
