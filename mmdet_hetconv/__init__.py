"""HetConv for MMDetection. Importing this package registers everything."""

from importlib.util import find_spec

from . import kernels, layers  # noqa: F401
from .engine import hooks  # noqa: F401
from .engine.safe_globals import allow_training_checkpoints
from .version import __version__
from .zoo import config_path

allow_training_checkpoints()

# The layers are of use with torch and mmengine alone.
if find_spec('mmdet'):
    from . import models  # noqa: F401
    from .engine import metrics, voc_images  # noqa: F401

__all__ = ['__version__', 'config_path']
