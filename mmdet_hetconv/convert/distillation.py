"""Dense to heterogeneous weights: all layers together, without labels.

After :func:`calibrate` has fitted layer by layer, the converted network is
trained towards the dense one's features on the same images, cropped and
flipped at random.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..layers import HetConv2d
from .calibration import call
from .pairing import find_pairs
from .taps import find_taps, relative_errors, tapped
from .trace import Forward

# One batch in so many judges, where nothing else is given to judge with.
HOLD_OUT = 10
BATCH_SIZE = 64
RATE = 0.02
# Looks at the held-out images, in all.
CHECKS = 20
# Looks without a gain after which it stops.
PATIENCE = 5

Augment = Callable[[Any, torch.Generator], Any]
Log = Callable[[str], None]


@dataclass
class DistilReport:
    """What :func:`distil` did.

    Attributes:
        before, after: relative error on the held-out images, summed over the
            compared features.
        steps: how many were made.
        stopped: why it ended: 'steps', 'minutes', 'no gain' or 'interrupted'.
        history: (step, held-out error) at every look.
    """

    before: float = math.nan
    after: float = math.nan
    steps: int = 0
    seconds: float = 0.0
    stopped: str = 'steps'
    history: list[tuple[int, float]] = field(default_factory=list)


def crop_and_flip(images: Tensor, generator: torch.Generator, padding: int = 4) -> Tensor:
    """Shifted by up to `padding` pixels and mirrored, each at random.

    Shape:
        images (B, C, H, W); returns the same.
    """
    size = images.shape[-2:]
    padded = nn.functional.pad(images, (padding,) * 4)
    result = torch.empty_like(images)
    for number, image in enumerate(padded):
        top, left = torch.randint(2 * padding + 1, (2,), generator=generator).tolist()
        part = image[:, top : top + size[0], left : left + size[1]]
        if torch.rand((), generator=generator) < 0.5:
            part = part.flip(-1)
        result[number] = part
    return result


class _Pool:
    """Draws training batches from the calibration batches."""

    def __init__(self, batches: Sequence[Any], augment: Augment, generator: torch.Generator):
        self.batches = batches
        self.augment = augment
        self.generator = generator
        self.images = None
        if isinstance(batches[0], Tensor) and len({b.shape[1:] for b in batches}) == 1:
            self.images = torch.cat(list(batches))

    def draw(self) -> Any:
        if self.images is None:
            number = int(torch.randint(len(self.batches), (), generator=self.generator))
            return self.augment(self.batches[number], self.generator)
        chosen = torch.randint(len(self.images), (BATCH_SIZE,), generator=self.generator)
        return self.augment(self.images[chosen], self.generator)


def distil(
    dense: nn.Module,
    het: nn.Module,
    batches: Sequence[Any],
    forward: Forward = call,
    *,
    steps: int | None = None,
    minutes: float | None = None,
    holdout: Sequence[Any] | None = None,
    augment: Augment = crop_and_flip,
    log: Log | None = None,
    seed: int = 0,
) -> DistilReport:
    """Train `het` towards the features of `dense`, in place.

    Both networks are left in eval mode; the dense one does not change.

    Args:
        dense: the trained network.
        het: the same architecture, some nn.Conv2d being HetConv2d, with the
            weights that :func:`calibrate` gave it.
        batches: of images without labels, as calibrate takes them.
        forward: runs a network on a batch; defaults to ``model(batch)``.
        steps, minutes: how long at most; 1,000 steps unless told otherwise.
        holdout: batches to judge with; one in ten of `batches` by default.
        augment: what is done to a batch before a step; crops and flips.
        log: receives a line at every look at the held-out images.

    Returns:
        DistilReport: held-out errors before and after.

    Raises:
        ValueError: no batches; networks that do not match.
        FloatingPointError: the loss is not finite.
    """
    find_pairs(dense, het)
    if len(batches) == 0:
        raise ValueError('distillation needs at least one batch of images')
    if steps is None and minutes is None:
        steps = 1000
    if holdout is None:
        judges = range(1, len(batches), HOLD_OUT)
        holdout = [batches[i] for i in judges] or [batches[0]]
        batches = [batches[i] for i in range(len(batches)) if i not in judges]
    dense.eval()
    het.eval()
    generator = torch.Generator().manual_seed(seed)
    pool = _Pool(batches, augment, generator)
    names = find_taps(het)
    parameters = [
        parameter
        for module in het.modules()
        if isinstance(module, (HetConv2d, _BatchNorm))
        for parameter in module.parameters()
    ]
    optimizer = torch.optim.SGD(parameters, lr=RATE, momentum=0.9, nesterov=True)

    def error(batch: Any) -> Tensor:
        with torch.no_grad(), tapped(dense, names) as theirs:
            forward(dense, batch)
        with tapped(het, names) as mine:
            forward(het, batch)
        return torch.stack(list(relative_errors(mine, theirs).values())).sum()

    def judge() -> float:
        with torch.no_grad():
            return sum(error(batch).item() for batch in holdout) / len(holdout)

    def state() -> dict[str, Tensor]:
        return {key: value.clone() for key, value in het.state_dict().items()}

    report = DistilReport()
    started = time.monotonic()
    report.before = report.after = judge()
    best, behind, next_check = state(), 0, 1 / CHECKS
    flags = {p: p.requires_grad for p in het.parameters()}
    for parameter in het.parameters():
        parameter.requires_grad_(False)
    for parameter in parameters:
        parameter.requires_grad_(True)
    try:
        while True:
            passed = time.monotonic() - started
            done = max(
                report.steps / steps if steps else 0.0, passed / 60 / minutes if minutes else 0.0
            )
            if done >= next_check or done >= 1:
                next_check += 1 / CHECKS
                value = judge()
                report.history.append((report.steps, value))
                if log is not None:
                    left = passed / done - passed
                    log(f'step {report.steps}, held-out error {value:.4f}, {left:.0f} s left')
                if value < report.after:
                    report.after, best, behind = value, state(), 0
                else:
                    behind += 1
                if behind == PATIENCE:
                    report.stopped = 'no gain'
                    break
            if done >= 1:
                break
            warm = min(1.0, done / 0.1)
            optimizer.param_groups[0]['lr'] = RATE * warm * (0.5 + 0.5 * math.cos(math.pi * done))
            loss = error(pool.draw())
            if not torch.isfinite(loss):
                raise FloatingPointError(f'the loss is {loss.item()} at step {report.steps}')
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            report.steps += 1
    except KeyboardInterrupt:
        report.stopped = 'interrupted'
    finally:
        for parameter, flag in flags.items():
            parameter.requires_grad_(flag)
    het.load_state_dict(best)
    report.seconds = time.monotonic() - started
    return report
