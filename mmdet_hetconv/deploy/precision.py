"""The number type in which a deployed model computes.

Convolutions cast their inputs to it; pooling, additions and up-sampling between them
compute in the type that they get. Everything else, and the outputs of heads and of the
model, is float32, so boxes are decoded in float32.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from mmengine.logging import print_log
from torch import nn

from ..kernels import PlannedConv2d, planned_convs
from ..models.anatomy import find_heads
from ..trace import Call, Recording, Scope, fewest_passing, record_examples
from ..trace.examples import Run
from ..trace.modules import left_alone
from ..utils.machine import cpu_name
from .interfaces import give_float32, is_easy, keep_inputs, keeps_inputs, reading_kinds
from .proof import Proof

PRECISIONS = ('fp32', 'bf16', 'int8')
# A larger relative difference to float32 is no rounding.
ROUNDING = 0.2


def check_precision(precision: str, device: torch.device) -> None:
    """Refuse a precision that a device does not have.

    Raises:
        ValueError: it is unknown, or slower than fp32 there.
    """
    if precision not in PRECISIONS:
        raise ValueError(f'precision={precision!r} is not one of {PRECISIONS}')
    if precision == 'int8' and device.type != 'cpu':
        raise ValueError(f'precision={precision!r}: int8 runs on the CPU, not on {device.type}')
    if precision == 'bf16' and not _computes_bf16(device):
        raise ValueError(
            f'precision={precision!r}: {cpu_name()} multiplies no bfloat16, it has fp32'
        )


def _computes_bf16(device: torch.device) -> bool:
    if device.type != 'cpu':
        return True
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def set_precision(model: nn.Module, precision: str, example: Any = None) -> None:
    """Let the planned convolutions of a deployed model compute in a precision.

    It replaces the previous precision and removes quantization levels. Processors without
    bfloat16 emulate it slowly, which is logged. For 'int8' the convolutions that are not
    quantized later compute in bfloat16 if the processor has it.

    Args:
        example: as of :func:`switch_to_deploy`.
    """
    convs = planned_convs(model)
    for conv in convs:
        conv.compute_dtype = conv.int8 = None
    if precision == 'fp32' or not convs:
        return
    device = convs[0].weights().grouped.device
    if precision == 'int8' and not _computes_bf16(device):
        return
    if not _computes_bf16(device):
        print_log(f'HetConv: {cpu_name()} multiplies no bfloat16: it is slow here', 'current')
    with ExitStack() as stack:
        for plan in {id(conv.plan): conv.plan for conv in convs}.values():
            stack.enter_context(plan.untimed())
        stack.enter_context(left_alone(model))
        left = _lower(model, convs, record_examples(model, example))
    for conv in convs:
        conv.compute_dtype = None if conv in left else torch.bfloat16
    if left:
        names = sorted(name for name, module in model.named_modules() if module in left)
        print_log(f'HetConv: {", ".join(names)} compute in float32', 'current')


def _lower(
    model: nn.Module, convs: list[PlannedConv2d], examples: Sequence[tuple[Run, Recording]]
) -> set[PlannedConv2d]:
    """Let convolutions compute in bfloat16; returns those that have to stay float32."""
    proof = Proof(model, examples[:1])
    recordings = [seen for _, seen in examples]
    keep_inputs(model, recordings)
    for module in (model, *find_heads(model)):
        give_float32(module)
    for conv in convs:
        if not recordings or not _may_be_low(conv, recordings):
            give_float32(conv)

    kinds = reading_kinds(convs, recordings)
    full: set[type] = set()

    def keep_full(kinds_of_code: set[type]) -> None:
        full.clear()
        full.update(kinds_of_code)
        for conv in convs:
            conv.compute_dtype = None if kinds[conv] & full else torch.bfloat16

    checks = proof.checks(lambda: model, ROUNDING, any_float=True) + proof.ends(model)
    fewest_passing(sorted(set().union(*kinds.values()), key=str), keep_full, checks)
    return {conv for conv in convs if kinds[conv] & full}


def _may_be_low(conv: PlannedConv2d, recordings: Sequence[Recording]) -> bool:
    """Whether all recorded readers of its output take fewer bits."""
    return all(
        recording.ends_in(value, _takes_any, lambda call: is_easy(call.target))
        for recording in recordings
        for call in recording.calls_of(conv)
        for value in call.outputs
    )


def _takes_any(call: Call) -> bool:
    if isinstance(call.target, PlannedConv2d) or call.target is None:
        return True
    if call.is_module and keeps_inputs(call.target):
        return True
    scope: Scope | None = call.scope
    while scope is not None and scope.module is not None:
        if keeps_inputs(scope.module):
            return True
        scope = scope.outer
    # Outputs of heads are float32 again.
    return call.scope.module is None
