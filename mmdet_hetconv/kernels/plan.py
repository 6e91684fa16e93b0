"""Which candidate computes a convolution, per layer and input shape.

Candidates are timed once per (layer, input shape, dtype, layout, machine) and
the fastest is kept. The dense convolution is among them, so at a size that
was timed a layer is never slower than dense.

Detectors see many image sizes. Height and width are rounded up to a bucket
(1, 2, 3, 4, 6, 8, 12, 16, 24 ...: two to an octave) and a bucket is timed
once, on the first input that falls into it. When the time budget is spent the
choice of the nearest bucket of the same layer is used, and for a layer that was
never timed the first candidate in order, which may be slower than dense.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from mmengine.logging import print_log
from torch import Tensor

from .candidate import Candidate
from .cpu.candidates import FusedAMX, FusedCPU
from .eager import PackedDenseNCHW, PackedDenseNHWC, TwoBranchNCHW, TwoBranchNHWC
from .int8 import EagerInt8, FusedInt8, FusedInt8AMX
from .key import InputKey, LayerKey
from .onednn import OneDNNDenseNCHW, OneDNNDenseNHWC, OneDNNTwoBranch
from .timing import time_candidates
from .triton.operator import FusedTriton
from .weights import ConvWeights

# In the order in which they are tried where nothing may be timed.
CANDIDATES: tuple[type[Candidate], ...] = (
    FusedTriton,
    FusedCPU,
    FusedAMX,
    OneDNNTwoBranch,
    TwoBranchNHWC,
    TwoBranchNCHW,
    OneDNNDenseNHWC,
    OneDNNDenseNCHW,
    PackedDenseNHWC,
    PackedDenseNCHW,
    FusedInt8,
    FusedInt8AMX,
    EagerInt8,
)
BY_NAME = {candidate.name: candidate for candidate in CANDIDATES}

# One at a time in the whole process: timings would disturb each other. A
# process that is forked while another thread times must not wait for it.
_choosing = threading.RLock()


def _renew_lock() -> None:
    global _choosing
    _choosing = threading.RLock()


os.register_at_fork(after_in_child=_renew_lock)


@dataclass
class Choice:
    """What was chosen for a layer and an input shape, and why.

    Attributes:
        candidate (str): its name.
        reason (str): 'timed', 'nearest' or 'order'.
        ms (dict): least milliseconds of each candidate that was timed.
        refused (dict): why the others were not.
    """

    candidate: str
    reason: str = 'timed'
    ms: dict[str, float] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        times = sorted(self.ms.items(), key=lambda item: item[1])
        lines = [f'{self.candidate} ({self.reason})']
        lines[0] += ''.join(f', {name} {ms:.3f} ms' for name, ms in times)
        lines += [f'    not {k}: {why}' for k, why in self.refused.items()]
        return '\n'.join(lines)


class Plan:
    """Choices made so far, shared by the layers of a model.

    Threads may share it; one of them chooses at a time.

    Args:
        budget_s (float): seconds that all timing together may take.
        frozen (bool): time nothing.
        dense (bool): whether dense candidates are allowed. Without them a layer may
            be slower than dense, and needs less memory.
        only (list[str], optional): names of the candidates to use at all.
        clock (Callable): seconds, for the timing of candidates.

    Attributes:
        choices (dict): by layer and input.
        spent_s (float): seconds that timing took so far.
        edits (int): version counter: cached choices are stale once it changes.

    Raises:
        ValueError: a name in ``only`` is unknown.
    """

    def __init__(
        self,
        budget_s: float = 120.0,
        frozen: bool = False,
        dense: bool = True,
        only: list[str] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ):
        unknown = sorted(set(only or ()) - set(BY_NAME))
        if unknown:
            raise ValueError(f'Plan: unknown candidates {unknown}, there are {sorted(BY_NAME)}')
        self.budget_s = budget_s
        self.frozen = frozen
        self.dense = dense
        self.only = only
        self.clock = clock
        self.spent_s = 0.0
        self.edits = 0
        self.choices: dict[tuple[LayerKey, InputKey], Choice] = {}
        self._told_drop = False

    def choose(
        self, weights: ConvWeights, x: Tensor, residual: bool, relu: bool
    ) -> tuple[type[Candidate], Candidate | None]:
        """The candidate for this input, and it itself if just built.

        Raises:
            RuntimeError: no candidate takes this input.
        """
        key = LayerKey.of(weights, residual, relu), InputKey.of(x)
        with _choosing:
            refused = self._refusals(weights, x)
            choice = self.choices.get(key)
            if choice and choice.candidate in refused:
                self._tell_drop(choice.candidate, refused[choice.candidate])
                choice = None
            built = None
            if choice is None:
                choice, built = self._choose(key, refused, weights, x)
                self.choices[key] = choice
            return BY_NAME[choice.candidate], built

    @contextmanager
    def untimed(self) -> Iterator[None]:
        """Time nothing inside the context, and discard what was chosen there."""
        frozen, known = self.frozen, dict(self.choices)
        self.frozen = True
        try:
            yield
        finally:
            self.frozen, self.choices = frozen, known
            self.edits += 1

    def _choose(
        self,
        key: tuple[LayerKey, InputKey],
        refused: dict[str, str],
        weights: ConvWeights,
        x: Tensor,
    ) -> tuple[Choice, Candidate | None]:
        layer, place = key
        usable = [c for c in CANDIDATES if c.name not in refused]
        if weights.p == 1:
            # Untimed, a dense layer is best left to the libraries.
            usable.sort(key=lambda candidate: not candidate.dense)
        if not usable:
            raise RuntimeError(f'Plan: no candidate for {layer} on {place}: {refused}')
        empty = 0 in (*x.shape, *weights.output_size(x.shape[2:]))
        if self.frozen or empty or self.spent_s >= self.budget_s:
            nearest = self._nearest(layer, place, refused)
            if nearest:
                return Choice(nearest, 'nearest', refused=refused), None
            return Choice(usable[0].name, 'order', refused=refused), None
        start = time.perf_counter()
        timed = time_candidates(usable, weights, x, layer.residual, layer.relu, self.clock)
        self._spend(time.perf_counter() - start)
        refused = refused | timed.failed
        if not timed.ms:
            raise RuntimeError(f'Plan: every candidate failed for {layer} on {place}: {refused}')
        name = min(timed.ms, key=timed.ms.__getitem__)
        return Choice(name, 'timed', timed.ms, refused), timed.built[name]

    def _refusals(self, weights: ConvWeights, x: Tensor) -> dict[str, str]:
        """Why candidates are not to be used, by name."""
        refused = {}
        for candidate in CANDIDATES:
            if candidate.quantized != (weights.int8 is not None):
                refused[candidate.name] = 'it computes in another precision'
                continue
            reason = candidate.why_not(weights, x)
            if self.only and candidate.name not in self.only:
                reason = reason or 'not asked for'
            if candidate.dense and not self.dense and weights.p > 1:
                reason = reason or 'dense is not allowed'
            if reason:
                refused[candidate.name] = reason
        return refused

    def _nearest(self, layer: LayerKey, place: InputKey, refused: dict[str, str]) -> str | None:
        """The choice that was timed for the nearest size, if usable."""
        near = [
            (abs(other.pixels - place.pixels), choice.candidate)
            for (known, other), choice in self.choices.items()
            if known == layer
            and other.kind == place.kind
            and choice.reason == 'timed'
            and choice.candidate not in refused
        ]
        return min(near)[1] if near else None

    def _spend(self, seconds: float) -> None:
        self.spent_s += seconds
        if self.spent_s >= self.budget_s:
            print_log(
                f'HetConv: the {self.budget_s:.0f} s for timing are spent; '
                'new input sizes take the choice of the nearest, layers that '
                'were never timed the first candidate in order',
                'current',
            )

    def _tell_drop(self, candidate: str, reason: str) -> None:
        if not self._told_drop:
            print_log(
                f'HetConv: the plan has {candidate}, which cannot be used '
                f'here ({reason}): what it was for is chosen anew',
                'current',
            )
        self._told_drop = True

    def state_dict(self) -> list[dict[str, Any]]:
        """What was timed, as plain lists and dictionaries."""
        return [
            dict(layer=layer._asdict(), input=place._asdict(), **asdict(choice))
            for (layer, place), choice in self.choices.items()
            if choice.reason == 'timed'
        ]

    def load_state_dict(self, state: list[dict[str, Any]]) -> None:
        """Take over the choices of :meth:`state_dict`.

        Candidates that this version does not know are dropped, with a log
        line; those that cannot be used on this machine are when their layer
        runs.

        Raises:
            ValueError: it is no state of a plan.
        """
        choices = {}
        try:
            for entry in state:
                entry = dict(entry)
                layer = LayerKey(**entry.pop('layer'))
                place = InputKey(**entry.pop('input'))
                choice = Choice(**entry)
                if choice.candidate in BY_NAME:
                    choices[layer, place] = choice
                else:
                    self._tell_drop(choice.candidate, 'it is unknown')
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise ValueError(f'it is not the state of a plan: {error}') from error
        self.choices = choices
        self.edits += 1

    def __str__(self) -> str:
        """The choices, and why candidates were refused."""
        lines = [
            f'{layer} | {place} | {choice}'
            for (layer, place), choice in sorted(self.choices.items(), key=lambda item: item[0])
        ]
        return '\n'.join([*lines, f'timing took {self.spent_s:.1f} s'])
