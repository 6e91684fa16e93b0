"""HetConv for MMDetection. Importing this package registers everything."""

from importlib.util import find_spec
from typing import Any

from . import kernels  # noqa: F401
from .comfort.training.hooks import whole_files  # noqa: F401
from .convert import convert_model
from .layers import DepthPointwiseConv2d, GroupPointwiseConv2d, HetConv2d
from .version import __version__
from .zoo import config_path

__all__ = [
    'DepthPointwiseConv2d',
    'GroupPointwiseConv2d',
    'HetConv2d',
    '__version__',
    'config_path',
    'convert_model',
]

# The layers are of use with torch and mmengine alone.
if find_spec('mmdet'):
    from . import models  # noqa: F401
    from .comfort.data.layouts import voc_dataset  # noqa: F401
    from .comfort.show import drawing  # noqa: F401
    from .comfort.training.hooks import curves, finite_loss, patience, resuming, val_loss  # noqa: F401
    from .deploy import switch_to_deploy
    from .workflow import metrics, teacher  # noqa: F401

    __all__ += ['load', 'switch_to_deploy']


def __getattr__(name: str) -> Any:
    """What is imported when it is first asked for."""
    if name != 'load':
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    from .comfort.show.loading import load

    return load
