"""One log line per load that projects dense weights."""

from mmengine.dist import is_main_process
from mmengine.logging import print_log

# The errors of the load that was logged last.
_logged: list[str] | None = None


def log_projection(name: str, error_msgs: list[str]) -> None:
    """Log one line for all layers that a load projects, at the first of them.

    Args:
        name: of the layer.
        error_msgs: the list that ``_load_from_state_dict`` gets; torch and mmengine hand
            one and the same to all layers of a load.
    """
    global _logged
    if error_msgs is not _logged and is_main_process():
        print_log(
            f'HetConv: dense weights are projected onto heterogeneous kernels, from {name} on',
            'current',
        )
    _logged = error_msgs
