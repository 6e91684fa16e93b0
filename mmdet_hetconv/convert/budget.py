"""p for each layer, so that the error is least under a budget.

A multiple-choice knapsack, solved by dynamic programming over the cost in
small steps, as Frantar and Alistarh, "SPDY: Accurate Pruning with Speedup
Guarantees", ICML 2022, choose sparsities.
"""

from collections.abc import Mapping

import numpy as np

# Into so many the budget is divided; costs are rounded up to them.
STEPS = 10_000

ByLayer = Mapping[str, Mapping[int, float]]


def choose_p(errors: ByLayer, costs: ByLayer, budget: float) -> dict[str, int]:
    """The p of each layer.

    Args:
        errors: by layer and p, what is to be least in sum.
        costs: by layer and p, MACs or ms, not negative.
        budget: what the costs may be in sum.

    Raises:
        ValueError: the least sum of costs is more than the budget.
    """
    least = sum(min(by_p.values()) for by_p in costs.values())
    if least > budget:
        raise ValueError(f'the budget {budget:.4g} is out of reach, the least is {least:.4g}')
    # Of what is spent above each layer's least; a budget of the least allows none.
    step = max((budget - least) / STEPS, 1e-12 * max(least, 1.0))
    best = np.zeros(STEPS + 1)  # least error by what may be spent
    chosen: list[tuple[str, np.ndarray]] = []
    for name, by_p in errors.items():
        cheapest = min(costs[name].values())
        found = np.full(STEPS + 1, np.inf)
        which = np.zeros(STEPS + 1, dtype=int)
        for p, error in by_p.items():
            extra = _steps(costs[name][p] - cheapest, step)
            if extra > STEPS:
                continue
            ways = best[: STEPS + 1 - extra] + error
            better = ways < found[extra:]
            found[extra:][better] = ways[better]
            which[extra:][better] = p
        best = found
        chosen.append((name, which))
    left = STEPS
    result = {}
    for name, which in reversed(chosen):
        p = int(which[left])
        result[name] = p
        left -= _steps(costs[name][p] - min(costs[name].values()), step)
    result = {name: result[name] for name in errors}
    _spend_the_rest(result, errors, costs, budget * (1 + 1e-12))
    return result


def _spend_the_rest(chosen: dict[str, int], errors: ByLayer, costs: ByLayer, budget: float) -> None:
    """Take what still fits: a whole network does whose costs were rounded up."""
    while True:
        spent = sum(costs[name][p] for name, p in chosen.items())
        gain, name, p = max(
            (
                (errors[name][chosen[name]] - error, name, p)
                for name, by_p in errors.items()
                for p, error in by_p.items()
                if spent - costs[name][chosen[name]] + costs[name][p] <= budget
            ),
            default=(0.0, '', 1),
        )
        if gain <= 0:
            return
        chosen[name] = p


def _steps(cost: float, step: float) -> int:
    return int(np.ceil(cost / step - 1e-9))
