"""Comparable times of several functions."""

from collections.abc import Callable

import torch


def times_in_turns(
    runs: dict[str, Callable],
    rounds: int,
    device: str,
    clock: Callable[[], float],
    untimed: int = 0,
    after_each: Callable[[], None] = lambda: None,
) -> dict[str, list[float]]:
    """Time functions in turns, A B A B ..., so that drift affects all alike; milliseconds.

    Args:
        runs: functions without arguments, warmed up.
        rounds: times that each is run.
        device: 'cpu', or one whose queue has to be waited for.
        clock: seconds.
        untimed: runs before each timed one, so that a short function does
            not pay for the caches that the one before it has emptied.
        after_each: called after each timed one.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            for _ in range(untimed):
                run()
            if device != 'cpu':
                torch.cuda.synchronize()
            start = clock()
            run()
            if device != 'cpu':
                torch.cuda.synchronize()
            times[name].append((clock() - start) * 1e3)
            after_each()
    return times
