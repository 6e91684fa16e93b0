"""Milliseconds of several candidates on one input."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .candidate import LAYOUTS, Candidate
from .eager import PackedDenseNCHW
from .int8 import EagerInt8
from .key import layout_of
from .quantized import QuantizedTensor
from .weights import ConvWeights

# Rounds, the factor of the best time beyond which a candidate drops out after the
# first round, and seconds after which no further round starts.
ROUNDS = 4
HOPELESS = 3.0
ENOUGH_S = 3.0


# |y - wanted| / |wanted| that rounding makes, at most, by the number type of the input.
ROUNDING = {torch.float64: 1e-6, torch.float32: 1e-3}
LOW = 0.05


def _values(y: Tensor) -> Tensor:
    return y.floats() if isinstance(y, QuantizedTensor) else y.float()


def _difference(y: Tensor, wanted: Tensor, dtype: torch.dtype) -> str | None:
    """Why a candidate's output is not that of the plain convolution, or None.

    None, too, where the plain output is not finite.
    """
    if y.shape != wanted.shape:
        return f'it puts out {tuple(y.shape)} in place of {tuple(wanted.shape)}'
    if not wanted.numel() or not wanted.isfinite().all():
        return None
    error = float((y - wanted).norm() / wanted.norm().clamp_min(1e-30))
    if error <= ROUNDING.get(dtype, LOW):
        return None
    return f'its outputs differ by {error:.2g} from those of the plain convolution'


@dataclass
class Timed:
    """The result of :func:`time_candidates`.

    Attributes:
        ms: least milliseconds of each candidate that ran, by name.
        failed: why the others did not run.
        built: the candidates that ran.
    """

    ms: dict[str, float] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    built: dict[str, Candidate] = field(default_factory=dict)


def time_candidates(
    candidates: Sequence[type[Candidate]],
    weights: ConvWeights,
    x: Tensor,
    residual: bool,
    relu: bool,
    clock: Callable[[], float],
) -> Timed:
    """Build and time them in turns, so that a disturbance hits all of them.

    Args:
        residual: whether one is added.
        clock: seconds.
    """
    start = time.perf_counter()
    added = None
    if residual:
        size = weights.output_size(x.shape[2:])
        like = x.raw if isinstance(x, QuantizedTensor) else x
        added = like.new_zeros((x.shape[0], weights.out_channels, *size))
        added = added.contiguous(memory_format=LAYOUTS[layout_of(x)])
        if isinstance(x, QuantizedTensor):
            added = QuantizedTensor.of(added, x.levels)

    def milliseconds(candidate: Candidate) -> float:
        if x.device.type == 'cuda':
            torch.cuda.synchronize(x.device)
        begin = clock()
        candidate(x, added, relu)
        if x.device.type == 'cuda':
            torch.cuda.synchronize(x.device)
        return (clock() - begin) * 1e3

    result = Timed()
    wanted = _values((EagerInt8 if weights.int8 else PackedDenseNCHW)(weights, x)(x, added, relu))
    for candidate in candidates:
        try:
            built = candidate(weights, x)
            # Warms up, compiles.
            reason = _difference(_values(built(x, added, relu)), wanted, x.dtype)
            if reason:
                result.failed[candidate.name] = reason
                continue
            first = milliseconds(built)
        except Exception as error:
            # Out of memory, or a kernel that does not compile: each library
            # has errors of its own. The plan's summary shows it.
            result.failed[candidate.name] = str(error).split('\n')[0][:200]
            continue
        result.built[candidate.name] = built
        result.ms[candidate.name] = first
    best = min(result.ms.values(), default=0.0)
    close = [n for n, ms in result.ms.items() if ms < HOPELESS * best]
    for _ in range(ROUNDS):
        if time.perf_counter() - start > ENOUGH_S:
            break
        for name in close:
            # Three in a row, as the first finds the caches that another candidate
            # filled. The minimum, as any disturbance makes a run longer.
            runs = [milliseconds(result.built[name]) for _ in range(3)]
            result.ms[name] = min(result.ms[name], *runs)
    return result
