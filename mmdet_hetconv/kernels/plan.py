"""Which candidate computes a convolution, per layer and input shape.

Candidates are timed once per (layer, input shape, dtype, layout, device,
threads) and the fastest is kept. The dense convolution is among them, so a
layer is never slower than dense.

Detectors see many image sizes. Height and width are rounded up to a bucket
(1, 2, 3, 4, 6, 8, 12, 16, 24 ...: two to an octave) and a bucket is timed
once, on the first input that falls into it; when the time budget is spent,
what is known about the nearest bucket is used.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

import torch
from mmengine.logging import print_log
from torch import Tensor

from .candidate import LAYOUTS, Candidate
from .eager import (
    PackedDenseNCHW,
    PackedDenseNHWC,
    TwoBranchNCHW,
    TwoBranchNHWC,
)
from .fused_cpu import FusedCPU
from .fused_triton import FusedTriton
from .onednn import OneDNNDenseNCHW, OneDNNDenseNHWC, OneDNNTwoBranch
from .weights import ConvWeights

# In the order in which they are tried where nothing may be timed.
CANDIDATES: tuple[type[Candidate], ...] = (
    FusedTriton,
    FusedCPU,
    OneDNNTwoBranch,
    TwoBranchNHWC,
    TwoBranchNCHW,
    OneDNNDenseNHWC,
    OneDNNDenseNCHW,
    PackedDenseNHWC,
    PackedDenseNCHW,
)
BY_NAME = {candidate.name: candidate for candidate in CANDIDATES}

# Timing candidates: rounds, the factor beyond which one is out after the
# first, and seconds for a shape after which no further round starts.
ROUNDS = 4
HOPELESS = 3.0
ENOUGH_S = 3.0


def bucket(size: int) -> int:
    """The next of 1, 2, 3, 4, 6, 8, 12, 16, 24 ...; 0 for 0."""
    if size <= 2:
        return size
    power = 1 << (size - 1).bit_length()  # the next power of two
    return power * 3 // 4 if size <= power * 3 // 4 else power


def layout_of(x: Tensor) -> str:
    """'nhwc' for a channels-last tensor, else 'nchw'."""
    last = x.is_contiguous(memory_format=torch.channels_last)
    return 'nhwc' if last and not x.is_contiguous() else 'nchw'


def device_name(device: torch.device) -> str:
    """What a choice made on this device is good for."""
    if device.type == 'cuda':
        return torch.cuda.get_device_name(device)
    if device.type == 'cpu':
        capability = torch.backends.cpu.get_cpu_capability()
        return f'cpu {capability} {torch.get_num_threads()} threads'
    return device.type


def layer_key(weights: ConvWeights, relu: bool, residual: bool) -> str:
    """Layers of equal key cost the same."""

    def times(pair) -> str:
        return 'x'.join(map(str, pair))

    parts = [
        f'{weights.in_channels}->{weights.out_channels}',
        f'k{times(weights.kernel_size)}',
        f's{times(weights.stride)}',
        f'a{times(weights.padding)}',
        f'd{times(weights.dilation)}',
        f'p{weights.p}',
        'bias' * (weights.bias is not None),
        'shifted' * (weights.input_order is not None),
        'add' * residual,
        'relu' * relu,
    ]
    return ' '.join(part for part in parts if part)


@dataclass
class Choice:
    """What was chosen for a layer and an input shape, and why.

    Attributes:
        candidate (str): its name.
        ms (dict): least milliseconds of each candidate that was timed.
        refused (dict): why the others were not.
        reason (str): 'timed', 'fixed', 'nearest' or 'order'.
    """

    candidate: str
    ms: dict[str, float] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    reason: str = 'timed'

    def dense_ms(self) -> float | None:
        """The fastest dense candidate's time."""
        times = [t for name, t in self.ms.items() if BY_NAME[name].dense]
        return min(times, default=None)


class Plan:
    """Choices made so far, shared by the layers of a model.

    Args:
        budget_s (float): seconds that all timing together may take.
        frozen (bool): time nothing; what is not in the plan takes the
            nearest bucket's choice.
        dense (bool): whether dense candidates are allowed; without them the
            guarantee is gone, and with it their memory.
        only (list[str], optional): names of the candidates to use at all.
        clock (Callable): seconds, for the timing of candidates.

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
            raise ValueError(
                f'Plan: unknown candidates {unknown}, there are '
                f'{sorted(BY_NAME)}'
            )
        self.budget_s = budget_s
        self.frozen = frozen
        self.dense = dense
        self.only = only
        self.clock = clock
        self.spent_s = 0.0
        # Counts what invalidates a choice that somebody remembers.
        self.edits = 0
        # layer key -> 'BxHxW dtype layout device' -> choice
        self.choices: dict[str, dict[str, Choice]] = {}

    def choose(
        self, weights: ConvWeights, x: Tensor, residual: bool, relu: bool
    ) -> tuple[type[Candidate], Candidate | None]:
        """The candidate for this input, and it itself if just built."""
        layer = layer_key(weights, relu, residual)
        place = self._place(x)
        known = self.choices.setdefault(layer, {})
        built = None
        if place not in known:
            usable, refused = self._usable(weights, x)
            nearest = self._nearest(known, place, usable)
            empty = 0 in (*x.shape, *weights.output_size(x.shape[2:]))
            if self.frozen or empty or self.spent_s >= self.budget_s:
                choice = Choice(
                    nearest or usable[0].name,
                    refused=refused,
                    reason='nearest' if nearest else 'order',
                )
            else:
                choice, built = self._time(
                    usable, refused, weights, x, residual, relu
                )
            known[place] = choice
        return BY_NAME[known[place].candidate], built

    def _place(self, x: Tensor) -> str:
        batch, _, height, width = x.shape
        return (
            f'{bucket(batch)}x{bucket(height)}x{bucket(width)} '
            f'{str(x.dtype).removeprefix("torch.")} {layout_of(x)} '
            f'{device_name(x.device)}'
        )

    def _usable(
        self, weights: ConvWeights, x: Tensor
    ) -> tuple[list[type[Candidate]], dict[str, str]]:
        usable, refused = [], {}
        for candidate in CANDIDATES:
            reason = candidate.why_not(weights, x)
            if not reason and self.only and candidate.name not in self.only:
                reason = 'not asked for'
            if (
                not reason
                and candidate.dense
                and not self.dense
                and weights.p > 1
            ):
                reason = 'dense is not allowed'
            if reason:
                refused[candidate.name] = reason
            else:
                usable.append(candidate)
        if weights.p == 1:
            # Untimed, a dense layer is best left to the libraries.
            usable.sort(key=lambda candidate: not candidate.dense)
        if not usable:
            raise RuntimeError(
                f'Plan: no candidate for {layer_key(weights, False, False)} '
                f'on {tuple(x.shape)}: {refused}'
            )
        return usable, refused

    @staticmethod
    def _nearest(known, place, usable) -> str | None:
        """The choice for the nearest size of the same kind, if usable."""
        names = {candidate.name for candidate in usable}
        size, kind = place.split(' ', 1)

        def pixels(text: str) -> int:
            batch, height, width = map(int, text.split('x'))
            return batch * height * width

        near = [
            (abs(pixels(other.split(' ', 1)[0]) - pixels(size)), choice)
            for other, choice in known.items()
            if other.split(' ', 1)[1] == kind and choice.candidate in names
        ]
        return min(near, key=lambda n: n[0])[1].candidate if near else None

    def _time(
        self, usable, refused, weights, x, residual, relu
    ) -> tuple[Choice, Candidate]:
        start = time.perf_counter()
        extra = None
        if residual:
            size = weights.output_size(x.shape[2:])
            extra = x.new_zeros(
                (x.shape[0], weights.out_channels, *size)
            ).contiguous(memory_format=LAYOUTS[layout_of(x)])
        refused = dict(refused)
        running: dict[str, Candidate] = {}
        times: dict[str, list[float]] = {}
        for candidate in usable:
            try:
                built = candidate(weights, x)
                self._milliseconds(built, x, extra, relu)  # warm up, compile
                first = self._milliseconds(built, x, extra, relu)
            except Exception as error:
                # Out of memory, or a kernel that does not compile: each
                # library has errors of its own. The summary shows it.
                refused[candidate.name] = str(error).split('\n')[0][:200]
                continue
            running[candidate.name] = built
            times[candidate.name] = [first]
        if not running:
            raise RuntimeError(
                f'Plan: every candidate failed on {tuple(x.shape)}: {refused}'
            )
        best = min(t[0] for t in times.values())
        close = [n for n, t in times.items() if t[0] < HOPELESS * best]
        # In turns, so that a disturbance hits all of them.
        for _ in range(ROUNDS):
            if time.perf_counter() - start > ENOUGH_S:
                break
            for name in close:
                # Thrice in a row: the first pays for the caches that the
                # candidate before it has emptied, so it depends on the order.
                times[name] += [
                    self._milliseconds(running[name], x, extra, relu)
                    for _ in range(3)
                ]
        # The least of several: whatever disturbs a run makes it longer.
        ms = {name: min(t) for name, t in times.items()}
        name = min(close, key=lambda n: ms[n])
        self.spent_s += time.perf_counter() - start
        if self.spent_s >= self.budget_s:
            print_log(
                f'HetConv: the {self.budget_s:.0f} s for timing are spent; '
                'new input sizes use what is known of the nearest',
                'current',
            )
        return Choice(name, ms, refused), running[name]

    def _milliseconds(self, candidate, x, residual, relu) -> float:
        if x.device.type == 'cuda':
            torch.cuda.synchronize(x.device)
        start = self.clock()
        candidate(x, residual, relu)
        if x.device.type == 'cuda':
            torch.cuda.synchronize(x.device)
        return (self.clock() - start) * 1e3

    def state_dict(self) -> dict:
        """Plain dictionaries, to be stored with a checkpoint."""
        return {
            layer: {place: asdict(choice) for place, choice in known.items()}
            for layer, known in self.choices.items()
        }

    def load_state_dict(self, state: dict) -> None:
        """Take over the choices of :meth:`state_dict`.

        Raises:
            ValueError: a candidate's name is unknown.
        """
        choices = {
            layer: {place: Choice(**choice) for place, choice in known.items()}
            for layer, known in state.items()
        }
        for known in choices.values():
            for choice in known.values():
                if choice.candidate not in BY_NAME:
                    raise ValueError(
                        f'Plan: unknown candidate {choice.candidate!r}, '
                        f'there are {sorted(BY_NAME)}'
                    )
        self.choices = choices
        self.edits += 1

    def fix(self, layer: str, place: str, candidate: str) -> None:
        """Choose by hand; the names are those in :meth:`summary`.

        Raises:
            ValueError: the candidate's name is unknown.
        """
        if candidate not in BY_NAME:
            raise ValueError(
                f'Plan: unknown candidate {candidate!r}, there are '
                f'{sorted(BY_NAME)}'
            )
        self.choices.setdefault(layer, {})[place] = Choice(
            candidate, reason='fixed'
        )
        self.edits += 1

    def summary(self) -> str:
        """A table of the choices, and why candidates were refused."""
        lines = []
        for layer, known in sorted(self.choices.items()):
            for place, choice in sorted(known.items()):
                line = f'{layer} | {place} | {choice.candidate}'
                line += f' ({choice.reason})'
                if choice.candidate in choice.ms:
                    line += f' {choice.ms[choice.candidate]:.3f} ms'
                dense = choice.dense_ms()
                if dense is not None:
                    line += f', dense {dense:.3f} ms'
                lines.append(line)
                lines += [
                    f'    not {name}: {reason}'
                    for name, reason in choice.refused.items()
                ]
        lines.append(f'timing took {self.spent_s:.1f} s')
        return '\n'.join(lines)
