"""Dense to heterogeneous weights: all layers together, without labels.

After :func:`calibrate` has fitted layer by layer, the converted network is
trained towards the dense one's features on the same images, shifted and
mirrored at random. The loss is the sum of relative squared errors over the
outputs of all blocks, as in Frantar and Alistarh, "SPDY: Accurate Pruning with
Speedup Guarantees", ICML 2022, over all layers; of a detector that of its
predictions, too.
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
from .draws import Draws
from .pairing import find_pairs
from .taps import Call, feature_errors, find_taps, last_call, tapped
from .trace import Forward

# What learns: converted layers and norms. All else is the dense network's.
LEARNING = (HetConv2d, _BatchNorm, nn.GroupNorm)
STEPS = 1000
# Of Adam; reached after a tenth of the time, then half a cosine to 0.
RATE = 3e-3
WARM_UP = 0.1
# Gradients are cut to this length.
LONGEST = 1.0
# One batch in so many judges, where there are none to judge with.
HOLD_OUT = 10
# Batches that are drawn from them, at most.
JUDGED = 8
# Looks at them in all, and those without a gain after which it ends.
LOOKS = 20
PATIENCE = 5

Log = Callable[[str], None]


@dataclass
class DistilReport:
    """What :func:`distil` did.

    Attributes:
        before, after: error on held-out images: the sum over the compared
            features of |het - dense|^2 / |dense|^2, and over the dense heads
            of the errors of their predictions.
        steps: how many were made.
        stopped: why it ended: 'done', 'no gain', 'interrupted' or
            'not finite'.
        history: the step and the held-out error of every look.
    """

    before: float
    after: float
    steps: int = 0
    seconds: float = 0.0
    stopped: str = 'done'
    history: list[tuple[int, float]] = field(default_factory=list)


class _Clock:
    """How much of the steps or of the time is over, whichever is more."""

    def __init__(self, steps: int | None, minutes: float | None):
        self.steps = STEPS if steps is None and minutes is None else steps
        self.minutes = minutes
        self.started = time.monotonic()

    def seconds(self) -> float:
        return time.monotonic() - self.started

    def done(self, step: int) -> float:
        """0 at the start, 1 at the end."""
        shares = [0.0]
        if self.steps is not None:
            shares.append(step / self.steps)
        if self.minutes is not None:
            shares.append(self.seconds() / 60 / self.minutes)
        return min(1.0, max(shares))

    def rate(self, step: int) -> float:
        done = self.done(step)
        if done < WARM_UP:
            return RATE * (done / WARM_UP + 1e-2)
        return RATE * (0.5 + 0.5 * math.cos(math.pi * (done - WARM_UP) / (1 - WARM_UP)))


class _Student:
    """The converted network, and how far it is from the dense one."""

    def __init__(self, dense: nn.Module, het: nn.Module, forward: Forward):
        self.dense = dense
        self.het = het
        self.forward = forward
        self.taps = find_taps(het)
        self.last: Call | None = None  # known after the first pass
        learning = [m for m in het.modules() if isinstance(m, LEARNING)]
        self.parameters = [p for m in learning for p in m.parameters()]
        self.learned = {p: p.requires_grad for p in het.parameters()}

    def __enter__(self) -> '_Student':
        for parameter in self.learned:
            parameter.requires_grad_(False)
        for parameter in self.parameters:
            parameter.requires_grad_(True)
        return self

    def __exit__(self, *error: object) -> None:
        for parameter, flag in self.learned.items():
            parameter.requires_grad_(flag)
            parameter.grad = None

    def loss(self, batch: Any) -> Tensor:
        """The sum of the errors.

        Raises:
            ValueError: nothing can be compared; features are not finite at
                the beginning.
        """
        with torch.no_grad(), tapped(self.dense, self.taps, self.last) as theirs:
            self.forward(self.dense, batch)
        with tapped(self.het, self.taps, self.last) as mine:
            self.forward(self.het, batch)
        errors = feature_errors(self.het, mine, theirs)
        if self.last is None:
            if not errors:
                raise ValueError('the two networks have no features to compare')
            for (name, _), error in errors.items():
                if not torch.isfinite(error):
                    raise ValueError(
                        f'{name}: its features on the calibration images are not finite'
                    )
            self.last = last_call(mine, errors)
        return torch.stack(list(errors.values())).sum()

    @torch.no_grad()
    def judge(self, batches: Sequence[Any]) -> float:
        return sum(self.loss(batch).item() for batch in batches) / len(batches)

    def keep(self) -> None:
        """Remember the weights as they are now."""
        self.best = {key: value.clone() for key, value in self.het.state_dict().items()}

    def restore(self) -> None:
        """Go back to the weights that were remembered last."""
        self.het.load_state_dict(self.best)


def _split(batches: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """What is trained on, and what judges: one image, or batch, in so many."""
    if len(batches) == 1 and isinstance(batches[0], Tensor):
        batches = batches[0].split(max(1, len(batches[0]) // HOLD_OUT))
    held = range(1, len(batches), HOLD_OUT)
    training = [batches[i] for i in range(len(batches)) if i not in held]
    return training, [batches[i] for i in held] or training


def _train(
    student: _Student,
    draws: Draws,
    judged: Sequence[Any],
    clock: _Clock,
    report: DistilReport,
    log: Log | None,
) -> None:
    """Train until the time is over or nothing is gained any more."""
    optimizer = torch.optim.Adam(student.parameters, lr=RATE)
    looks = 0
    behind = 0
    while behind < PATIENCE:
        done = clock.done(report.steps)
        if done >= (looks + 1) / LOOKS:
            looks = int(done * LOOKS)
            error = student.judge(judged)
            report.history.append((report.steps, error))
            if error < report.after:
                report.after = error
                student.keep()
                behind = 0
            elif done > WARM_UP:
                behind += 1
            if log is not None:
                left = clock.seconds() * (1 - done) / done
                log(f'step {report.steps}: held-out error {error:.4f}, {left:.0f} s left')
        if done == 1:
            return
        for group in optimizer.param_groups:
            group['lr'] = clock.rate(report.steps)
        loss = student.loss(draws.draw())
        if not torch.isfinite(loss):
            report.stopped = 'not finite'
            return
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(student.parameters, LONGEST)
        optimizer.step()
        report.steps += 1
    report.stopped = 'no gain'


def distil(
    dense: nn.Module,
    het: nn.Module,
    batches: Sequence[Any],
    forward: Forward = call,
    *,
    steps: int | None = None,
    minutes: float | None = None,
    holdout: Sequence[Any] | None = None,
    log: Log | None = None,
    seed: int = 0,
) -> DistilReport:
    """Train `het` towards the features of `dense`, in place.

    HetConv layers and norms learn, at fixed batch-norm statistics. Of
    all states that were looked at, the best stays. Ctrl-C, or an error, ends it early. Both
    networks are left in eval mode; the dense one does not change.

    Args:
        dense: the trained network.
        het: the same architecture, some nn.Conv2d being HetConv2d, with the
            weights that :func:`calibrate` gave it.
        batches: of images without labels, as calibrate takes them: tensors
            (B, C, H, W), or dicts with lists ``inputs`` and ``data_samples``.
        forward: runs a network on a batch; defaults to ``model(batch)``.
        steps, minutes: how long at most, whichever is over first; 1,000
            steps if there is neither.
        holdout: batches to judge with; one in ten of `batches` by default.
        log: receives a line at every look at the held-out images.
        seed: of what is drawn.

    Returns:
        DistilReport: held-out errors before and after.

    Raises:
        ValueError: no batches; networks that do not match; features that are
            not finite, or none to compare.
    """
    find_pairs(dense, het)
    if len(batches) == 0:
        raise ValueError('distillation needs at least one batch of images')
    dense.eval()
    het.eval()
    training, held = _split(batches) if holdout is None else (batches, holdout)
    draws = Draws(training, torch.Generator().manual_seed(seed))
    judge = Draws(held, torch.Generator().manual_seed(seed))
    judged = [judge.draw() for _ in range(min(JUDGED, len(held)))]
    student = _Student(dense, het, forward)
    before = student.judge(judged)
    report = DistilReport(before, before)
    clock = _Clock(steps, minutes)
    student.keep()
    try:
        with student, torch.enable_grad():
            _train(student, draws, judged, clock, report, log)
    except KeyboardInterrupt:
        report.stopped = 'interrupted'
    finally:
        student.restore()
    report.seconds = clock.seconds()
    return report
