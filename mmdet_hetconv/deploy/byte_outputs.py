"""Finds convolutions whose outputs only quantized convolutions read, which take bytes."""

from collections.abc import Collection, Mapping, Sequence

from torch import nn

from ..kernels import PlannedConv2d
from ..kernels.cpu.library import load_library
from ..trace import Call, Recording


def byte_outputs(
    convs: Mapping[str, PlannedConv2d], recordings: Sequence[Recording], quantized: Collection[str]
) -> set[str]:
    """Names of the convolutions whose output may be bytes.

    Max-pooling of bytes returns bytes. Everything else reads floats.

    Args:
        convs: all planned convolutions, by name.
        recordings: runs of the model.
        quantized: names of the convolutions that read bytes.
    """
    reading = {convs[name] for name in quantized}

    def only_convs(conv: PlannedConv2d) -> bool:
        calls = [(r, call) for r in recordings for call in r.calls_of(conv)]
        return bool(calls) and all(
            recording.readers(value)
            and recording.ends_in(value, lambda c: c.target in reading, _keeps_bytes)
            for recording, call in calls
            for value in call.outputs
        )

    return {name for name in quantized if only_convs(convs[name])}


def _keeps_bytes(call: Call) -> bool:
    if load_library()[0] is None or not call.seen or call.kwargs.get('return_indices'):
        return False
    if call.is_module:
        return type(call.target) is nn.MaxPool2d and not call.target.return_indices
    return getattr(call.target, '__name__', '') == 'max_pool2d' and len(call.inputs[0].shape) == 4
