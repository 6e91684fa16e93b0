"""Compares two forms of a network, and finds the changes that make them differ."""

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from torch import Tensor

from .tensors import find_tensors

Thing = TypeVar('Thing')
# Share of integers that may differ: ranks of nearly equal scores change places.
RANKS = 0.02


def difference(found: Any, wanted: Any, any_float: bool = False) -> float:
    """The largest relative difference |found - wanted| / |wanted| of all tensors.

    Infinite if the number, the shapes or the types of the tensors differ, or the places
    where they are not finite.

    Args:
        any_float: whether floating-point types may differ.
    """
    mine, theirs = list(find_tensors(found)), list(find_tensors(wanted))
    if len(mine) != len(theirs):
        return math.inf
    if any_float:
        mine = [a.float() if a.is_floating_point() else a for a in mine]
        theirs = [b.float() if b.is_floating_point() else b for b in theirs]
    return max((_difference(a, b) for a, b in zip(mine, theirs)), default=0.0)


def _difference(found: Tensor, wanted: Tensor) -> float:
    if type(found) is not type(wanted) or found.dtype != wanted.dtype:
        return math.inf
    if found.shape != wanted.shape:
        return math.inf
    if not wanted.numel():
        return 0.0
    if not wanted.is_floating_point():
        return 0.0 if (found != wanted).float().mean() <= RANKS else math.inf
    found, wanted = found.double(), wanted.double()
    finite = wanted.isfinite()
    if not finite.equal(found.isfinite()):
        return math.inf
    found, wanted = found[finite], wanted[finite]
    return float((found - wanted).norm() / wanted.norm().clamp_min(1e-12))


def fewest(things: Sequence[Thing], works: Callable[[set[Thing]], bool]) -> set[Thing]:
    """A smallest set that works: nothing in it can be left out.

    Divide and conquer (Junker, "QuickXPlain", AAAI 2004): finding k of n things takes
    about k log(n / k) trials.

    Args:
        things: candidates; all of them together work.
        works: whether a set works.
    """

    def needed(things: Sequence[Thing], given: set[Thing], is_new: bool) -> set[Thing]:
        if is_new and works(given):
            return set()
        if len(things) == 1:
            return set(things)
        half = len(things) // 2
        first, second = things[:half], things[half:]
        of_second = needed(second, given | set(first), bool(first))
        return of_second | needed(first, given | of_second, bool(of_second))

    return needed(things, set(), True) if things else set()


def fewest_passing(
    things: Sequence[Thing],
    apply: Callable[[set[Thing]], None],
    checks: Sequence[Callable[[], bool]],
) -> set[Thing]:
    """A smallest set with which all checks pass; all things if no set passes.

    The search repeats only the checks that have failed so far. The set that is returned is
    the one that was applied last.

    Args:
        apply: lets a set take effect, in place of the one before.
    """
    left: set[Thing] = set()
    failing: list[Callable[[], bool]] = []

    def works(some: set[Thing]) -> bool:
        apply(some)
        return all(check() for check in failing)

    while True:
        apply(left)
        failed = [check for check in checks if check not in failing and not check()]
        if not failed or len(left) == len(things):
            return left
        failing += failed
        left = fewest(things, works)
