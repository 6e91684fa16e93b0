"""Dense to heterogeneous weights: all layers together, without labels.

After :func:`calibrate` has fitted layer by layer, the converted network is
trained towards the dense one's features on the same images, shifted and
mirrored at random. The loss is the sum of relative squared errors over the
outputs of all blocks, as in Frantar and Alistarh, "SPDY: Accurate Pruning with
Speedup Guarantees", ICML 2022, over all layers, and the error of what the network is for:
a detector's predictions, else its outputs, channel by channel. That error, on held-out
images, decides which state is kept; the state at the beginning is one of them.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ...layers import HetConv2d
from ...trace import record
from ..calibration.calibrate import call
from ..calibration.dense_trace import Forward
from ..pairing import find_pairs
from .batches import Draws
from .features import Call, feature_errors, find_taps, last_call, output_errors, tapped

# What learns: converted layers and norms. All else is the dense network's.
LEARNING = (HetConv2d, _BatchNorm, nn.GroupNorm)
STEPS = 1000
# Of Adam; reached after a tenth of the time, then half a cosine to 0. Without norms the
# same step changes a layer's outputs more, and the layers behind it.
RATE = 3e-3
RATE_WITHOUT_NORMS = 1e-3
WARM_UP = 0.1
# Gradients are cut to this length.
LONGEST = 1.0
# One batch in so many judges, where there are none to judge with.
HOLD_OUT = 10
# Batches that are drawn from them, at most.
JUDGED = 8
# Looks at them in all, and those without a gain after which training goes back to the best
# state and on at a smaller rate, once; then it ends.
LOOKS = 20
PATIENCE = 5
SMALLER = 0.1

Log = Callable[[str], None]
# Of what the converted and the dense network return, a scalar.
OutputLoss = Callable[[Any, Any], Tensor]


@dataclass
class DistilReport:
    """What :func:`distil` did.

    Attributes:
        before, after: error on held-out images of what the network is for: of the
            predictions of its dense heads, else of its outputs, or of the user's loss.
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

    def share_of_rate(self, step: int) -> float:
        done = self.done(step)
        if done < WARM_UP:
            return done / WARM_UP + 1e-2
        return 0.5 + 0.5 * math.cos(math.pi * (done - WARM_UP) / (1 - WARM_UP))


class _Student:
    """The converted network, and how far it is from the dense one."""

    def __init__(
        self,
        dense: nn.Module,
        het: nn.Module,
        forward: Forward,
        example: Any,
        learn: str | None,
        output_loss: OutputLoss | None,
    ):
        self.dense = dense
        self.het = het
        self.forward = forward
        self.output_loss = output_loss
        self.taps = find_taps(het, record(het, partial(forward, het, example)))
        self.last: Call | None = None  # known after the first pass
        modules = list(het.modules())
        has_norms = any(isinstance(m, LEARNING[1:]) for m in modules)
        if learn == 'converted' or (learn is None and has_norms):
            modules = [m for m in modules if isinstance(m, LEARNING)]
        found = {p: None for m in modules for p in m.parameters() if p.is_floating_point()}
        self.parameters = list(found)
        self.rate = RATE if has_norms else RATE_WITHOUT_NORMS
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

    def loss(self, batch: Any) -> tuple[Tensor, Tensor]:
        """The sum of all errors, and of those of what the network is for.

        Raises:
            ValueError: nothing can be compared; features are not finite at
                the beginning.
        """
        last = None if self.output_loss else self.last
        output = wanted = None
        with torch.no_grad(), tapped(self.dense, self.taps, last) as theirs:
            wanted = self.forward(self.dense, batch)
        with tapped(self.het, self.taps, last) as mine:
            output = self.forward(self.het, batch)
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
        if self.output_loss is not None:
            # In place of the error of what the network returns.
            errors = {key: error for key, error in errors.items() if key[0]}
            own = self.output_loss(output, wanted)
            return torch.stack([own, *errors.values()]).sum(), own
        own = torch.stack(list(output_errors(errors).values())).sum()
        return torch.stack(list(errors.values())).sum(), own

    @torch.no_grad()
    def judge(self, batches: Sequence[Any]) -> float:
        """The error of what the network is for, the mean over the batches."""
        return sum(self.loss(batch)[1].item() for batch in batches) / len(batches)

    def keep(self) -> None:
        """Remember the weights as they are now."""
        self.best = {key: value.clone() for key, value in self.het.state_dict().items()}

    def restore(self) -> None:
        """Go back to the weights that were remembered last."""
        self.het.load_state_dict(self.best)


def _split(batches: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """Split into training and held-out batches; one in HOLD_OUT is held out."""
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
    """Train until the time is over, or nothing is gained at the smaller rate either."""
    looks = 0
    for rate in (student.rate, SMALLER * student.rate):
        student.restore()
        optimizer = torch.optim.Adam(student.parameters, lr=rate)
        behind = 0
        report.stopped = 'no gain'
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
                report.stopped = 'done'
                return
            for group in optimizer.param_groups:
                group['lr'] = rate * clock.share_of_rate(report.steps)
            loss, _ = student.loss(draws.draw())
            if not torch.isfinite(loss):
                report.stopped = 'not finite'
                break
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(student.parameters, LONGEST)
            optimizer.step()
            report.steps += 1


def distil(
    dense: nn.Module,
    het: nn.Module,
    batches: Sequence[Any],
    forward: Forward = call,
    *,
    steps: int | None = None,
    minutes: float | None = None,
    holdout: Sequence[Any] | None = None,
    learn: str | None = None,
    loss: OutputLoss | None = None,
    log: Log | None = None,
    seed: int = 0,
) -> DistilReport:
    """Train `het` towards the features and outputs of `dense`, in place.

    Batch-norm statistics are fixed. Of all states that were looked at, the one with the
    least held-out error stays, so the result is never worse than what was given. If
    nothing is gained for a while, training goes back to that state and on at a tenth of
    the rate, once. Ctrl-C, or an error, ends it early. Both networks are left in eval
    mode; the dense one does not change.

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
        learn: 'converted' layers and norms, or 'all' parameters; by default all where
            there is no norm.
        loss: takes what `forward` returned for `het` and for `dense`; the error of the
            outputs in place of the default, in training and to choose what is kept.
        log: receives a line at every look at the held-out images.
        seed: of what is drawn.

    Returns:
        DistilReport: held-out errors before and after.

    Raises:
        ValueError: no batches; networks that do not match; features that are
            not finite, or none to compare; an unknown `learn`.
    """
    if learn not in (None, 'converted', 'all'):
        raise ValueError(f"learn={learn!r} is neither 'converted' nor 'all'")
    find_pairs(dense, het)
    if len(batches) == 0:
        raise ValueError('distillation needs at least one batch of images')
    dense.eval()
    het.eval()
    training, held = _split(batches) if holdout is None else (batches, holdout)
    draws = Draws(training, torch.Generator().manual_seed(seed))
    judge = Draws(held, torch.Generator().manual_seed(seed))
    judged = [judge.draw() for _ in range(min(JUDGED, len(held)))]
    student = _Student(dense, het, forward, judged[0], learn, loss)
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
