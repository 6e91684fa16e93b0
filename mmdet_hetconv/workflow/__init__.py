"""From a trained dense detector to a fast one: convert, deploy, export, slim, evaluate.

Each is a function with keyword arguments, for configs and checkpoints; the module of
the same verb's noun has it. They are imported when they are first asked for.
"""

from importlib import import_module
from typing import Any

_MODULES = dict(
    convert='conversion',
    deploy='deployment',
    evaluate='evaluation',
    export='exporting',
    slim='slimming.slim',
    Images='calibration_images',
)
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(import_module(f'.{_MODULES[name]}', __name__), name)
