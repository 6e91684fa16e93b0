"""Whether two forms of a network do the same, and which changes are to blame if not."""

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from torch import Tensor

from .tensors import find_tensors

Thing = TypeVar('Thing')
# Share of whole numbers that may differ, as ranks of nearly equal scores do.
RANKS = 0.02


def difference(found: Any, wanted: Any, any_float: bool = False) -> float:
    """The largest relative difference |found - wanted| / |wanted| of all tensors.

    Infinite where the two do not hold tensors of the same number, shapes and types,
    or are not finite in the same places.

    Args:
        any_float: whether floats may have other types than those wanted.
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
    """A smallest set that makes it work: no thing in it can be left out.

    It halves what is in question (Junker, "QuickXPlain", AAAI 2004), so k of n
    things take about k log(n / k) trials.

    Args:
        things: all of them together work.
        works: tries a set.
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
    things: Sequence[Thing], put: Callable[[set[Thing]], None], checks: Sequence[Callable[[], bool]]
) -> set[Thing]:
    """A smallest set with which all checks pass, as far as one is found; it is put at the end.

    While it searches, only the checks that have failed so far are repeated.

    Args:
        put: lets a set count.
    """
    left: set[Thing] = set()
    failing: list[Callable[[], bool]] = []

    def works(some: set[Thing]) -> bool:
        put(some)
        return all(check() for check in failing)

    while True:
        put(left)
        failed = [check for check in checks if check not in failing and not check()]
        if not failed or len(left) == len(things):
            return left
        failing += failed
        left = fewest(things, works)
