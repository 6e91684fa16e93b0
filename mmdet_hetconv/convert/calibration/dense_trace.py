"""What the dense network does: order of its layers, targets, statistics."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ...layers import HetConv2d
from ...trace import Call, Recording, hooked, record
from ...trace.kinds import NORMS
from ...trace.modules import has_own_code
from ...trace.recording import is_idle
from .moments import Moments
from .patches import sample_positions, take_outputs

Forward = Callable[[nn.Module, Any], object]


@dataclass
class ConvTrace:
    """A convolution of the dense network over all batches.

    Attributes:
        norms: names of the batch norms that took its output; None for an
            output that something else took, or changed.
        targets: by batch and call, sampled positions and the outputs there.
            The outputs are None where they are not comparable with the
            converted network's, see :func:`trace_dense`.
    """

    norms: set[str | None] = field(default_factory=set)
    targets: dict[tuple[int, int], tuple[Tensor, Tensor | None]] = field(default_factory=dict)


@dataclass
class DenseTrace:
    """What :func:`trace_dense` saw.

    Attributes:
        calls: by name in order of execution, how often a forward pass calls
            the convolutions that get new weights and all batch norms, at
            most. What is never called is not here.
        convs: those convolutions.
        norms: the inputs of those batch norms.
    """

    calls: dict[str, int] = field(default_factory=dict)
    convs: dict[str, ConvTrace] = field(default_factory=dict)
    norms: dict[str, Moments] = field(default_factory=dict)

    def norms_behind(self, name: str) -> list[str]:
        """Batch norms that alone take all outputs of a convolution, and nothing else."""
        norms = []
        for norm in self.convs[name].norms:
            if norm is None or self.calls[norm] > 1:
                return []
            norms.append(norm)
        return norms


def find_stops(dense: nn.Module, het_layers: dict[str, HetConv2d]) -> dict[str, nn.Module]:
    """The convolutions that get new weights, and the norms that follow, by name."""
    return {
        name: module
        for name, module in dense.named_modules()
        if name in het_layers or (isinstance(module, _BatchNorm) and module.track_running_stats)
    }


def trace_dense(
    dense: nn.Module,
    het_layers: dict[str, HetConv2d],
    batches: Sequence[Any],
    forward: Forward,
    positions: Callable[[HetConv2d], int],
    after_batch: Callable[[], None],
) -> DenseTrace:
    """Run the dense network once over all batches.

    A convolution that is fed another number of images than the network (the
    RoIs of a two-stage detector) sees other things in the dense network than
    in the converted one, in another order. Only positions are recorded for
    it, no outputs.

    Args:
        het_layers: the converted network's layers that get new weights; the
            dense network's convolutions have the same names.
        positions: how many output positions a layer needs in all.
    """
    result = DenseTrace()
    calls: Counter[str] = Counter()  # in this forward pass
    batch = images = 0
    generator = torch.Generator()

    def look(name: str, x: Tensor, y: Tensor) -> None:
        nonlocal images
        call = calls[name]
        calls[name] += 1
        result.calls[name] = max(result.calls.get(name, 0), calls[name])
        if name not in het_layers:
            result.norms.setdefault(name, Moments()).add(x)
            return
        images = images or len(y)
        total = len(y) * y.shape[-2] * y.shape[-1]
        shares = len(batches) * result.calls[name]
        quota = math.ceil(positions(het_layers[name]) / shares)
        chosen = sample_positions(total, quota, generator)
        outputs = take_outputs(y, chosen) if len(y) == images else None
        trace = result.convs.setdefault(name, ConvTrace())
        trace.targets[batch, call] = chosen, outputs

    stops = find_stops(dense, het_layers)
    plain = {module: name for name, module in stops.items() if not has_own_code(module)}
    with hooked(stops, after=look):
        for batch in range(len(batches)):
            generator.manual_seed(batch)
            calls.clear()
            images = 0
            recording = record(dense, partial(forward, dense, batches[batch]))
            for name, trace in result.convs.items():
                for call in recording.calls_of(stops[name]):
                    trace.norms |= _takers(recording, call, plain)
            after_batch()
    return result


def _takers(recording: Recording, call: Call, plain: dict[nn.Module, str]) -> set[str | None]:
    """The norms that take a convolution's output; None for anything else.

    Args:
        plain: names of the modules that nobody has hooked.
    """
    norms = {module: name for module, name in plain.items() if type(module) in NORMS}
    readers = {
        norms.get(reader.target)
        for value in call.outputs
        for reader in recording.readers(value, call.number)
        if not is_idle(reader)
    }
    return readers if readers and call.target in plain else {None}
