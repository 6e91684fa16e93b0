"""Which layers of a model have to stay what they are: seen by running it before and after.

Code may read a layer's weight, or ask for its type. With another layer in its place the
model then raises, goes another way, or returns something else.
"""

from dataclasses import replace
from functools import partial
from typing import Any

from torch import nn

from ..layers.cost import Convolution
from ..layers.replace import ConvRecord, put_modules
from ..trace import Recording, fewest, record
from ..trace.examples import Run, forward_tensors, image_runs
from ..trace.kinds import SELECTING
from ..trace.modules import left_alone

READ = 'other code reads its parameters'
ASKED = 'other code treats another layer in its place in another way'


class Way:
    """What a model does, step by step, on a small random image; nothing if it takes none.

    A detector of mmdet runs up to what its heads put out.

    Attributes:
        touched: the modules whose parameters other code reads.
    """

    def __init__(self, model: nn.Module):
        self.model = model
        with left_alone(model):
            found = self._first_that_ends()
        self.run: Run | None = found[0]
        seen = found[1]
        self.touched = seen.touched if seen else set()
        self._steps = self._steps_of(seen) if seen else None

    def _first_that_ends(self) -> tuple[Run, Recording] | tuple[None, None]:
        for run in image_runs(self.model, forward_tensors):
            try:
                return run, record(self.model, partial(run, self.model))
            except Exception:  # whatever a network says of an input that is not its own
                continue
        return None, None

    def is_kept(self) -> bool:
        """Whether the model still does these steps, with whatever numbers."""
        if self.run is None:
            return True
        try:
            with left_alone(self.model):
                seen = record(self.model, partial(self.run, self.model))
        except Exception:  # whatever code says of a layer that it does not know
            return False
        return self._steps_of(seen) == self._steps

    def _steps_of(self, recording: Recording) -> tuple[list[str], list[Any]]:
        """The calls before the first whose result decides what follows, and what is returned."""
        names: dict[Any, str] = {m: name for name, m in self.model.named_modules()}
        *calls, end = recording.calls
        steps: list[str] = []
        for call in calls:
            own = getattr(call.target, '__name__', '')
            if not call.outputs or own in SELECTING:
                return steps, [len(end.inputs)]
            steps.append(names.get(call.target, own))
        # Rows may be what was found in an image.
        return steps, [value.shape[1:] for value in end.inputs]


def keep_way(
    way: Way, dense: dict[str, Convolution], records: list[ConvRecord]
) -> list[ConvRecord]:
    """Put back, of the convolutions that were replaced, the fewest that a model asks for.

    Args:
        way: of the model as it came.
        dense: the convolutions that it had.
        records: of the exchange.

    Returns:
        list: the records, with a reason where a convolution was put back.
    """
    new = {record.name: record.layer for record in records if record.reason is None}

    def works(left: set[str]) -> bool:
        put_modules(way.model, {new[name]: dense[name] for name in left})
        kept = way.is_kept()
        put_modules(way.model, {dense[name]: new[name] for name in left})
        return kept

    # A model that goes another way each time tells nothing.
    if works(set()) or not works(set(new)):
        return records
    left = fewest(list(new), works)
    put_modules(way.model, {new[name]: dense[name] for name in left})
    return [
        replace(record, layer=dense[record.name], reason=ASKED) if record.name in left else record
        for record in records
    ]
