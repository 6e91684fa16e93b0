"""One log line for all the dense weights that one load has projected."""

import sys
import weakref
from collections.abc import Callable

from mmengine.dist import is_main_process
from mmengine.logging import print_log

# Layers projected so far, by the load they belong to.
_projected: dict[int, int] = {}


def _running_load() -> Callable | None:
    """The inner function of the load_state_dict that is running, if any.

    A layer is told neither which model it is loaded as a part of nor when
    that is done. Both torch's and mmengine's load_state_dict recurse with an
    inner function ``load`` and let go of it at their end, so its lifetime is
    that of the load.
    """
    frame = sys._getframe(2)
    while frame is not None:
        if frame.f_code.co_name == 'load_state_dict':
            return frame.f_locals.get('load')
        frame = frame.f_back
    return None


def _log(key: int) -> None:
    layers = _projected.pop(key)
    if is_main_process():
        print_log(
            'HetConv: dense weights projected onto heterogeneous kernels, '
            f'layers: {layers}',
            'current',
        )


def report_projected() -> None:
    """Count one projected layer; to be called from _load_from_state_dict."""
    load = _running_load()
    if load is None:  # _load_from_state_dict was called by hand
        return
    key = id(load)
    if key not in _projected:
        weakref.finalize(load, _log, key)
    _projected[key] = _projected.get(key, 0) + 1
