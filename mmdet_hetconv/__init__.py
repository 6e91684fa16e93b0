"""HetConv for MMDetection. Importing this package registers everything."""

from . import layers  # noqa: F401
from .version import __version__

__all__ = ['__version__']
