"""Compares a changed model with the original, part by part.

Behind ranks and thresholds outputs jump although the numbers hardly change. So the parts
in front of them are compared, each on the inputs that the original gave it.
"""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..trace import Call, Recording, Scope, difference, is_detector, map_tensors, record
from ..trace.examples import Run
from ..trace.kinds import OPERATIONS, SELECTING
from .rewriting.blocks import base_type


@dataclass
class Case:
    """One call of a part of a model: its inputs, and the outputs of the original.

    Attributes:
        name: name of the module; None for the whole run.
    """

    name: str | None
    run: Run
    outputs: Any

    @torch.no_grad()
    def error(
        self, model: nn.Module, any_float: bool = False, rows: Collection[type] | None = None
    ) -> float:
        """Relative difference of the outputs; infinite if the model raises.

        Args:
            any_float: whether floating-point types of the outputs may differ.
            rows: types of modules for which convolutions return maps channels first.
                Parts without such modules get channels-last inputs, as convolutions
                may return them. None leaves inputs as they were.
        """
        part = model.get_submodule(self.name) if self.name else model
        given = {}
        if rows is not None and self.name:
            given['turned'] = not any(base_type(inner) in rows for inner in part.modules())
        try:
            found = self.run(part, **given)
        except Exception:  # the original did not
            return math.inf
        return difference(found, self.outputs, any_float and bool(self.name))


class Proof:
    """Outputs of the original model, to compare with.

    Args:
        model: the original, in eval mode.
        examples: forward passes and their recordings. Detectors of mmdet are slow: each of
            their parts is compared on the first run that reaches it.
    """

    def __init__(self, model: nn.Module, examples: Sequence[tuple[Run, Recording]]):
        self.runs = [run for run, _ in examples]
        self.recordings = [seen for _, seen in examples]
        self.cases: list[Case] = []
        names = {module: name for name, module in model.named_modules()}
        compared: set[nn.Module | None] = set()
        for run, seen in examples:
            parts = {scope.module for scope in _parts(seen.run)} - compared
            if is_detector(model):
                compared |= parts
            if model in {call.target for call in seen.calls}:
                self.cases.append(Case(None, run, _copied(run(model))))
            elif parts:
                again = record(model, partial(run, model), parts.__contains__)
                for module in parts:
                    assert module is not None
                    for scope in again.scopes_of(module):
                        replay = partial(_replay, args=scope.args, kwargs=scope.kwargs)
                        self.cases.append(Case(names[module], replay, scope.outputs))

    def error(self, model: nn.Module) -> float:
        """The largest relative difference of all cases."""
        return max((case.error(model) for case in self.cases), default=0.0)

    def checks(
        self, model: Callable[[], nn.Module], tolerance: float, **how: Any
    ) -> list[Callable[[], bool]]:
        """For each case, a check whether the outputs are still the same.

        Args:
            model: returns the changed model.
            how: arguments of :meth:`Case.error`.
        """

        def is_near(case: Case) -> bool:
            return case.error(model(), **how) <= tolerance

        return [partial(is_near, case) for case in self.cases]

    def ends(self, model: nn.Module) -> list[Callable[[], bool]]:
        """For each run, a check whether the model completes it."""

        def does_end(run: Run) -> bool:
            try:
                run(model)
            except Exception:  # as above
                return False
            return True

        return [partial(does_end, run) for run in self.runs]


def _replay(module: nn.Module, args: Any, kwargs: Any, turned: bool = False) -> Any:
    args, kwargs = _copied((args, kwargs))
    if turned:
        args, kwargs = map_tensors(_channels_last, (args, kwargs))
    return module(*args, **kwargs)


def _channels_last(tensor: Tensor) -> Tensor:
    if tensor.dim() != 4 or not tensor.is_floating_point():
        return tensor
    return tensor.contiguous(memory_format=torch.channels_last)


def _copied(value: Any) -> Any:
    return map_tensors(Tensor.clone, value)


def _parts(scope: Scope) -> list[Scope]:
    """The largest calls of modules in which nothing is selected by value.

    A module whose own code calls convolutions, or that calls none at all, counts as one
    part even if it selects.
    """
    calls = [step for step in scope.steps if isinstance(step, Call)]
    selects = scope.module is None or any(
        getattr(call.target, '__name__', '') in SELECTING or not call.seen for call in calls
    )
    works, inside = (
        any(isinstance(call.target, (nn.Conv2d, *OPERATIONS)) for call in found)
        for found in (calls, scope.calls())
    )
    if not selects or works or (scope.module is not None and not inside):
        return [scope] if any(call.is_module for call in scope.calls()) else []
    inner = [step for step in scope.steps if isinstance(step, Scope)]
    return [part for step in inner for part in _parts(step)]
