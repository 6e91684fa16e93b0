"""Training and evaluation as the tools run them: checks, curves, patience, validation loss.

``train`` and ``test`` are functions with keyword arguments, imported when they are first
asked for.
"""

from typing import Any

__all__ = ['test', 'train']


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    from . import run

    return getattr(run, name)
