"""What a training checkpoint of mmengine holds besides tensors.

Since torch 2.6, torch.load() unpickles tensors and plain containers only. The
message hub in a checkpoint of mmengine holds HistoryBuffers of numpy arrays:
exactly these are allowed here, and the protection stays on for the rest.

A HistoryBuffer also pickles its methods min, max, current and mean, as calls
of ``getattr``. With the true getattr a checkpoint could reach everything, so
that the name stands for :func:`statistics_method` while loading.
"""

import os
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

# Where numpy's pickles look for its functions: 1.x and 2.x.
_NUMPY_HOMES = ('numpy.core.multiarray', 'numpy._core.multiarray')
_STATISTICS = ('min', 'max', 'current', 'mean')


def statistics_method(owner: type, name: str) -> Callable:
    """getattr(HistoryBuffer, name) for the four methods it pickles.

    Raises:
        UnpicklingError: anything else is asked for.
    """
    if owner is not HistoryBuffer or name not in _STATISTICS:
        raise pickle.UnpicklingError(
            f'Unsupported global: GLOBAL builtins.getattr({owner!r}, {name!r})'
        )
    return getattr(owner, name)


def checkpoint_globals() -> list:
    """The entries for torch.serialization.add_safe_globals()."""
    array = np.zeros(1)
    reconstruct = array.__reduce__()[0]
    scalar = array[0].__reduce__()[0]
    allowed = [HistoryBuffer, np.ndarray, np.dtype]
    # np.dtype('f8') is an instance of a class of its own since numpy 1.25;
    # losses are float64 and counts int64, metrics may be float32.
    allowed += [type(np.dtype(name)) for name in ('f8', 'f4', 'i8')]
    allowed.append((statistics_method, 'builtins.getattr'))
    for home in _NUMPY_HOMES:
        allowed.append((reconstruct, f'{home}._reconstruct'))
        allowed.append((scalar, f'{home}.scalar'))
    return allowed


def allow_training_checkpoints() -> None:
    """Let torch.load(weights_only=True) read checkpoints of mmengine.

    For programs, and while :func:`training_checkpoints` lasts: it changes
    torch's list for the whole process. Before torch 2.6 torch.load() knows no
    such protection by default, and nothing has to be allowed.
    """
    version = torch.__version__.split('.')[:2]
    if tuple(int(part) for part in version) >= (2, 6):
        torch.serialization.add_safe_globals(checkpoint_globals())


@contextmanager
def training_checkpoints() -> Iterator[None]:
    """A context in which torch.load(weights_only=True) reads checkpoints of mmengine."""
    before = torch.serialization.get_safe_globals()
    allow_training_checkpoints()
    try:
        yield
    finally:
        # torch's own safe_globals() would take off what was there before.
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


def load_weights_only() -> None:
    """Make every torch.load() of this process one of weights only.

    mmengine downloads by torch.hub, which unpickles anything, and torch
    before 2.6 does so by default; later ones refuse what a training of
    mmengine saves. For programs: a library that does it on import would
    change what its user's own files may hold.
    """
    os.environ.pop('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', None)
    os.environ['TORCH_FORCE_WEIGHTS_ONLY_LOAD'] = '1'
    allow_training_checkpoints()
