"""Fits the levels of 8 bits to feature maps of calibration images."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..kernels import PlannedConv2d
from ..kernels.int8 import quantize as to_levels
from ..kernels.weights import Levels
from ..trace import hooked
from ..utils.progress import progress_bar

# Values of a feature map and image that its levels are fitted to.
SAMPLES = 4096
# Shares of the range that are tried.
CLIPS = torch.linspace(0.3, 1.0, 36).tolist()

Run = Callable[[nn.Module, Any], Any]


def fit_levels(
    convs: Mapping[str, PlannedConv2d],
    model: nn.Module,
    batches: Sequence[Any],
    run: Run,
    show_progress: bool,
) -> tuple[dict[str, Levels], dict[str, Levels]]:
    """Levels of the input and of the output of each convolution that runs.

    A layer whose input is 0 everywhere has none: no range is known.
    """
    inputs: dict[str, _Samples] = {}
    outputs: dict[str, _Samples] = {}
    generator = torch.Generator().manual_seed(0)

    def look(name: str, x: Tensor, y: Tensor) -> None:
        inputs.setdefault(name, _Samples()).add(name, x, generator)
        outputs.setdefault(name, _Samples()).add(name, y, generator)

    bar = progress_bar('Levels of int8', len(batches), show_progress)
    with hooked(convs, after=look), bar as step:
        for batch in batches:
            run(model, batch)
            step()
    return _levels(inputs), _levels(outputs)


def _levels(samples: dict[str, '_Samples']) -> dict[str, Levels]:
    return {name: s.levels() for name, s in samples.items() if s.low < s.high}


class _Samples:
    """Samples of a feature map's values, and its range, over all batches."""

    def __init__(self) -> None:
        self.values: list[Tensor] = []
        self.low = self.high = 0.0

    def add(self, name: str, x: Tensor, generator: torch.Generator) -> None:
        if not x.numel():
            return
        low, high = map(float, x.aminmax())
        if not (abs(low) < float('inf') and abs(high) < float('inf')):
            raise ValueError(f'{name}: a feature map of the calibration images is not finite')
        self.low, self.high = min(self.low, low), max(self.high, high)
        x = x[None] if x.dim() == 3 else x
        flat = x.reshape(-1) if x.is_contiguous() else x.permute(0, 2, 3, 1).reshape(-1)
        at = torch.randint(len(flat), (min(SAMPLES, len(flat)),), generator=generator)
        self.values.append(flat[at.to(flat.device)].float().cpu())

    def levels(self) -> Levels:
        """The levels of least squared error; 0 is one of them, since padding is 0."""
        values = torch.cat(self.values)
        best, least = Levels(1.0, 0), float('inf')
        for clip in CLIPS:
            scale = clip * (self.high - self.low) / 255
            levels = Levels(scale, round(-clip * self.low / scale))
            back = (to_levels(values, levels) - levels.zero) * scale
            error = float((back - values).square().sum())
            if error < least:
                best, least = levels, error
        return best
