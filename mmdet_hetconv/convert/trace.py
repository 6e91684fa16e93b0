"""What the dense network does: order of its layers, targets, statistics."""

import math
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..layers import HetConv2d
from .live_memory import LiveMemory
from .moments import Moments
from .patches import sample_positions, take_outputs

Forward = Callable[[nn.Module, Any], object]


@dataclass
class ConvTrace:
    """A convolution of the dense network over all batches.

    Attributes:
        norms: names of the batch norms that took its output; None for an
            output that something else took.
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


def _is_tracked(module: nn.Module) -> bool:
    return isinstance(module, _BatchNorm) and module.track_running_stats


def held_by_a_pass(
    dense: nn.Module, het_layers: dict[str, HetConv2d], batch: object, forward: Forward
) -> int:
    """Bytes that an unfinished forward pass holds at a layer or norm, at most."""
    memory = LiveMemory(dense)

    def look(module: nn.Module, args: tuple[Any, ...]) -> None:
        memory.look()

    handles = [
        module.register_forward_pre_hook(look)
        for name, module in dense.named_modules()
        if name in het_layers or _is_tracked(module)
    ]
    try:
        with torch.no_grad(), memory:
            forward(dense, batch)
    finally:
        for handle in handles:
            handle.remove()
    return memory.peak


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
    output: weakref.ref[Tensor] | None = None  # the last convolution's
    writer = ''
    calls: dict[str, int] = {}  # in this forward pass
    batch = images = 0
    generator = torch.Generator()

    def count(name: str) -> int:
        """The number of this call in the forward pass, from 0 on."""
        call = calls.get(name, 0)
        calls[name] = call + 1
        result.calls[name] = max(result.calls.get(name, 0), calls[name])
        return call

    def settle(norm: str | None) -> None:
        """Note who took the last convolution's output."""
        nonlocal output
        if output is not None:
            result.convs[writer].norms.add(norm)
        output = None

    def after_conv(
        name: str, layer: HetConv2d
    ) -> Callable[[nn.Module, tuple[Any, ...], Tensor], None]:
        def hook(module: nn.Module, args: tuple[Any, ...], y: Tensor) -> None:
            nonlocal output, writer, images
            settle(None)
            trace = result.convs.setdefault(name, ConvTrace())
            call = count(name)
            images = images or len(y)
            total = len(y) * y.shape[-2] * y.shape[-1]
            shares = len(batches) * result.calls[name]
            quota = math.ceil(positions(layer) / shares)
            chosen = sample_positions(total, quota, generator)
            outputs = take_outputs(y, chosen) if len(y) == images else None
            trace.targets[batch, call] = chosen, outputs
            output, writer = weakref.ref(y), name

        return hook

    def before_norm(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            taken = output is not None and output() is args[0]
            settle(name if taken else None)
            count(name)
            result.norms.setdefault(name, Moments()).add(args[0])

        return hook

    handles = []
    for name, module in dense.named_modules():
        if name in het_layers:
            after = after_conv(name, het_layers[name])
            handles.append(module.register_forward_hook(after))
        elif _is_tracked(module):
            before = before_norm(name)
            handles.append(module.register_forward_pre_hook(before))
    try:
        with torch.no_grad():
            for batch in range(len(batches)):
                generator.manual_seed(batch)
                calls.clear()
                images = 0
                forward(dense, batches[batch])
                settle(None)
                after_batch()
    finally:
        for handle in handles:
            handle.remove()
    return result
