"""What the dense network does: order of its layers, targets, statistics."""

import weakref
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..layers import HetConv2d
from .live_memory import LiveMemory
from .moments import Moments
from .patches import sample_positions, take_outputs

Forward = Callable[[nn.Module, object], object]


@dataclass
class ConvTrace:
    """A convolution of the dense network over all batches.

    Attributes:
        calls: per forward pass, the most that were seen.
        norms: names of the batch norms that took its output; None for an
            output that something else took.
        targets: by batch and call, sampled positions and the outputs there.
            The outputs are None where they are not comparable with the
            converted network's, see :func:`trace_dense`.
    """

    calls: int = 0
    norms: set[str | None] = field(default_factory=set)
    targets: dict[tuple[int, int], tuple[Tensor, Tensor | None]] = field(
        default_factory=dict
    )


@dataclass
class NormTrace:
    """A batch norm of the dense network over all batches.

    Attributes:
        calls: per forward pass, the most that were seen.
        moments: of its inputs.
    """

    calls: int = 0
    moments: Moments = field(default_factory=Moments)


@dataclass
class DenseTrace:
    """What :func:`trace_dense` saw.

    Attributes:
        modules: by name in order of execution, the convolutions that get new
            weights and all batch norms. What is never called is not here.
        held: bytes that one unfinished forward pass holds at one of these
            modules, at most; of the first batch.
    """

    modules: dict[str, ConvTrace | NormTrace] = field(default_factory=dict)
    held: int = 0


def trace_dense(
    dense: nn.Module,
    het_layers: dict[str, HetConv2d],
    batches: Sequence,
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
    traces = result.modules
    memory = LiveMemory(dense)
    output: weakref.ref | None = None  # the last convolution's
    writer = ''
    calls: dict[str, int] = {}  # in this forward pass
    batch = images = 0
    generator = torch.Generator()

    def settle(norm: str | None) -> None:
        """Note who took the last convolution's output."""
        nonlocal output
        if output is not None:
            traces[writer].norms.add(norm)
        output = None

    def after_conv(name: str, layer: HetConv2d):
        def hook(module: nn.Module, args: tuple, y: Tensor) -> None:
            nonlocal output, writer, images
            settle(None)
            trace = traces.setdefault(name, ConvTrace())
            call = calls[name] = calls.get(name, -1) + 1
            trace.calls = max(trace.calls, call + 1)
            images = images or len(y)
            total = len(y) * y.shape[-2] * y.shape[-1]
            quota = -(-positions(layer) // (len(batches) * trace.calls))
            chosen = sample_positions(total, quota, generator)
            outputs = take_outputs(y, chosen) if len(y) == images else None
            trace.targets[batch, call] = chosen, outputs
            output, writer = weakref.ref(y), name

        return hook

    def look(module: nn.Module, args: tuple) -> None:
        memory.look()

    def before_norm(name: str):
        def hook(module: nn.Module, args: tuple) -> None:
            taken = output is not None and output() is args[0]
            settle(name if taken else None)
            trace = traces.setdefault(name, NormTrace())
            calls[name] = calls.get(name, -1) + 1
            trace.calls = max(trace.calls, calls[name] + 1)
            trace.moments.add(args[0])

        return hook

    handles = []
    for name, module in dense.named_modules():
        if name in het_layers:
            hook = after_conv(name, het_layers[name])
            handles.append(module.register_forward_pre_hook(look))
            handles.append(module.register_forward_hook(hook))
        elif isinstance(module, _BatchNorm) and module.track_running_stats:
            hook = before_norm(name)
            handles.append(module.register_forward_pre_hook(look))
            handles.append(module.register_forward_pre_hook(hook))
    try:
        with torch.no_grad():
            for batch in range(len(batches)):
                generator.manual_seed(batch)
                calls.clear()
                images = 0
                with memory if batch == 0 else nullcontext():
                    forward(dense, batches[batch])
                settle(None)
                after_batch()
    finally:
        for handle in handles:
            handle.remove()
    result.held = memory.peak
    return result
