"""Which layers of a model have to stay what they are: seen by running it before and after.

Code may read a layer's weight, or ask for its type. The model then raises with another
layer in its place, goes another way, or returns something else.
"""

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..deploy.proof import SELECTING
from ..trace import Recording, example_runs, fewest, find_tensors, record
from ..trace.examples import Run

READ = 'other code reads its parameters'
ASKED = 'with another layer in its place the model does something else'


class Way:
    """How a model goes from its input to its output, on a small random image.

    Nothing is seen of a model that does not run on one.
    """

    def __init__(self, model: nn.Module):
        self.model = model
        with left_alone(model):
            self.runs: list[Run] = example_runs(model, sizes=1)
            self.recordings = [record(model, partial(run, model)) for run in self.runs]
            self._names = {module: name for name, module in model.named_modules()}
            self._ways = [self._way(recording) for recording in self.recordings]

    @property
    def touched(self) -> set[nn.Module]:
        """The modules whose parameters other code reads."""
        return {module for recording in self.recordings for module in recording.touched}

    def is_the_same(self) -> bool:
        """Whether the model does today what it did, with whatever weights."""
        self._names = {module: name for name, module in self.model.named_modules()}
        with left_alone(self.model):
            try:
                now = [record(self.model, partial(run, self.model)) for run in self.runs]
            except Exception:  # whatever code says of a layer that it does not know
                return False
            return [self._way(recording) for recording in now] == self._ways

    def _way(self, recording: Recording) -> tuple[list[Any], list[Any]]:
        """The steps up to the first that depends on numbers, and the forms of the outputs."""
        steps = itertools.takewhile(
            lambda call: call.outputs and getattr(call.target, '__name__', '') not in SELECTING,
            (call for call in recording.calls if call.target is not None),
        )
        returned = recording.calls[-1].inputs
        # Rows may be what was found in an image.
        return (
            [self._names.get(s.target, getattr(s.target, '__name__', '')) for s in steps],
            [value.shape[1:] for value in returned],
        )
