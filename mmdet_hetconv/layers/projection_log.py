"""Says once per load that dense weights were projected."""

import math
import time

from mmengine.dist import is_main_process
from mmengine.logging import print_log

# Between two layers of one load passes less time than this, in seconds.
LOAD_PAUSE_S = 1.0
# The layers that the running load has projected, and when it did the last.
_projected: set[str] = set()
_last_projected = -math.inf


def log_projection(name: str) -> None:
    """One line for all layers that a load projects, at the first of them.

    A layer is told neither which model it is loaded as a part of nor when
    that is done: a pause, or a name that was there, begins another load.
    """
    global _last_projected
    now = time.monotonic()
    if name in _projected or now - _last_projected > LOAD_PAUSE_S:
        _projected.clear()
    if not _projected and is_main_process():
        print_log(
            f'HetConv: dense weights are projected onto heterogeneous kernels, from {name} on',
            'current',
        )
    _projected.add(name)
    _last_projected = now
