"""8 bits for the convolutions of a deployed model, from calibration images.

Static quantization after training: levels of inputs and outputs minimise the squared
error on calibration images; weights are quantized per filter. A layer keeps its precision
if quantizing it alone changes the outputs too much. Most layers change their own output
so little that the network need not run for each of them.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatch
from functools import cache, partial
from typing import Any

import torch
from mmengine.logging import print_log
from torch import nn

from ..kernels import PlannedConv2d
from ..kernels.cpu.library import load_library
from ..kernels.int8 import most_weight
from ..kernels.weights import Int8
from ..trace import fewest_passing, record
from ..trace.examples import noise_like
from ..utils.machine import cpu_name
from ..utils.table import format_table
from .byte_outputs import byte_outputs
from .int8_errors import own_errors, propagated_errors
from .int8_levels import Run, fit_levels
from .proof import Proof

# Batches on which the effect of single layers is measured.
SENSITIVITY_BATCHES = 2
# A layer whose quantization alone adds this relative squared error keeps its
# precision.
MOST_ERROR = 0.01
# Most relative error of the model from bytes between layers; more is no rounding.
MOST_BYTES_ERROR = 0.1
# What a layer adds to its own output grows on its way through the network: fourfold
# at most in trained ResNets. Below this it is not followed there.
MOST_OWN_ERROR = MOST_ERROR / 10


@dataclass
class Int8Report:
    """How each convolution computes, and why; prints as a table.

    Attributes:
        error: relative squared error from quantizing this layer alone, by name: of
            what leaves the convolutions, or, where that is small, of its own output.
        int8: how each layer computes; None for those that keep their precision.
    """

    error: dict[str, float] = field(default_factory=dict)
    int8: dict[str, Int8 | None] = field(default_factory=dict)

    def __str__(self) -> str:
        rows = []
        for name, int8 in self.int8.items():
            row = [name, f'{self.error[name]:.2g}' if name in self.error else 'not measured']
            if int8 is None:
                rows.append([*row, 'kept', '', ''])
                continue
            scale, zero = int8.input
            output = 'bytes' if int8.output else 'floats'
            rows.append([*row, 'int8', f'{scale:.4g} * (q - {zero})', output])
        head = ('layer', 'error alone', 'precision', 'input levels', 'output')
        return format_table(head, rows)


@torch.no_grad()
def quantize(
    model: nn.Module,
    batches: Sequence[Any],
    run: Run,
    *,
    keep: Collection[str] = (),
    show_progress: bool = False,
) -> Int8Report:
    """Let the convolutions of a deployed model compute in 8 bits.

    Args:
        model (nn.Module): deployed; changed in place.
        batches: calibration data.
        run: the model's forward pass on a batch.
        keep: names of layers that keep their precision, as of
            ``model.named_modules()``; with * and ? as in file names.

    Raises:
        ValueError: there are no batches; a name in ``keep`` fits no layer; a
            feature map is not finite. The model is unchanged then.
    """
    if not len(batches):
        raise ValueError('int8 needs calibration images, there are none')
    convs = {n: m for n, m in model.named_modules() if isinstance(m, PlannedConv2d)}
    kept = set()
    for pattern in keep:
        found = {name for name in convs if fnmatch(name, pattern)}
        if not found:
            raise ValueError(
                f'keep: {pattern!r} is none of the convolutions, such as {[*convs][:3]}'
            )
        kept |= found
    report = Int8Report(int8=dict.fromkeys(convs))
    few = [batches[i] for i in range(min(SENSITIVITY_BATCHES, len(batches)))]
    with ExitStack() as stack:
        # These runs differ from those of the quantized model: time nothing.
        for plan in {id(conv.plan): conv.plan for conv in convs.values()}.values():
            stack.enter_context(plan.untimed())
        stack.enter_context(_in_floats(convs.values()))
        given, made = fit_levels(convs, model, batches, run, show_progress)
        levels = {name: known for name, known in given.items() if name not in kept}
        report.error = own_errors(convs, levels, model, few, run)
        recordings = [
            record(model, partial(run, model, batch))
            for batch in (batches[0], noise_like(batches[0]))
        ]
        far = [name for name, error in report.error.items() if not error <= MOST_OWN_ERROR]
        if far:
            report.error |= propagated_errors(
                convs, far, given, model, few, run, recordings, show_progress
            )
        chosen = {name for name, error in report.error.items() if error <= MOST_ERROR}
        as_bytes = byte_outputs(convs, recordings, chosen)
        report.int8 |= {name: Int8(given[name], None) for name in chosen}
        set_int8(model, report.int8)
        first = partial(_on, run=run, batch=batches[0])
        proof = Proof(model, [(first, record(model, partial(first, model)))])

        def give_floats(floats: set[str]) -> None:
            for name in as_bytes:
                output = None if name in floats else made.get(name)
                convs[name].int8 = report.int8[name] = Int8(given[name], output)

        checks = proof.checks(lambda: model, MOST_BYTES_ERROR, any_float=True)
        fewest_passing(sorted(as_bytes), give_floats, checks)
    return report


@contextmanager
def _in_floats(convs: Collection[PlannedConv2d]) -> Iterator[None]:
    """Remove levels; restore them if the block raises."""
    before = {conv: conv.int8 for conv in convs}
    for conv in convs:
        conv.int8 = None
    try:
        yield
    except BaseException:
        for conv, int8 in before.items():
            conv.int8 = int8
        raise


def _on(model: nn.Module, run: Run, batch: Any) -> Any:
    return run(model, batch)


def set_int8(model: nn.Module, int8: dict[str, Int8 | None]) -> None:
    """Let convolutions compute as a report says.

    Raises:
        ValueError: there is no such convolution.
    """
    _tell_machine()
    # So no caller needs no_grad() because an L2Norm's weight wants a gradient.
    for parameter in model.parameters():
        if parameter.is_leaf:
            parameter.requires_grad_(False)
    for name, how in int8.items():
        try:
            conv = model.get_submodule(name)
        except AttributeError:
            conv = None
        if not isinstance(conv, PlannedConv2d):
            raise ValueError(f'{name!r} is no convolution of this model')
        conv.int8 = how


@cache
def _tell_machine() -> None:
    library, _ = load_library()
    if most_weight() < 127:
        text = f'HetConv: {cpu_name()} has no VNNI: int8 gains less, its weights have 7 bits'
        print_log(text, 'current')
    elif library is not None and library.hetconv_bytes_per_word() < 4:
        print_log(f'HetConv: {cpu_name()} multiplies no bytes: int8 gains less', 'current')
