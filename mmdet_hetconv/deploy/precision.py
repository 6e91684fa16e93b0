"""The number type in which a deployed model computes.

Convolutions turn their inputs into it, and what lies between them (pooling,
additions, up-sampling) takes what it gets. Weights and what comes out of heads
stay float32, so that boxes are decoded in it.
"""

from typing import Any

import torch
from mmcv.cnn import Scale
from mmdet.models.necks.ssd_neck import L2Norm
from mmengine.logging import print_log
from torch import Tensor, nn

from ..kernels import PlannedConv2d, planned_convs
from ..utils.machine import cpu_name
from .heads import find_heads
from .memory_format import map_tensors, takes_rows

PRECISIONS = ('fp32', 'bf16', 'int8')
# With weights in float32, and for inputs of fewer bits all the same.
_MIXED = (nn.GroupNorm, nn.LayerNorm, L2Norm, Scale)


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


def set_precision(model: nn.Module, precision: str) -> None:
    """Let the planned convolutions of a deployed model compute in a precision.

    It runs anywhere; where the processor lacks it, slower, which is logged.
    int8 means what is left of a model whose other convolutions compute in
    bytes: bfloat16 where the processor has it, for these are quicker then.
    """
    convs = planned_convs(model)
    if precision == 'fp32' or not convs:
        return
    if precision == 'int8' and not _computes_bf16(convs[0].weights().grouped.device):
        return
    dtype = torch.bfloat16
    if not _computes_bf16(convs[0].weights().grouped.device):
        print_log(f'HetConv: {cpu_name()} multiplies no bfloat16: it is slow here', 'current')
    readers = _float32_readers(model)
    # What they compute for their own kernels stays float32, too.
    inside = {id(m) for reader in readers if takes_rows(reader) for m in reader.modules()}
    for conv in convs:
        conv.compute_dtype = None if id(conv) in inside else dtype
    for module in readers:
        module.register_forward_pre_hook(_full_inputs, with_kwargs=True)
    for module in (model, *find_heads(model)):
        module.register_forward_hook(_full_outputs)


def _float32_readers(model: nn.Module) -> list[nn.Module]:
    """Modules that want float32: those with weights, or kernels, of their own.

    And what calls such kernels: a RoI extractor makes their output's memory
    after its own input.
    """
    modules = dict(model.named_modules())
    found = {}
    for name, module in modules.items():
        if _holds_weights(module):
            found[name] = module
        if not takes_rows(module):
            continue
        found[name] = module
        parent = name.rpartition('.')[0]
        while parent and isinstance(modules[parent], nn.ModuleList):
            parent = parent.rpartition('.')[0]
        found[parent] = modules[parent]
    return list(found.values())


def _holds_weights(module: nn.Module) -> bool:
    """Whether a module would meet its own float32 weights with fewer bits."""
    if isinstance(module, (PlannedConv2d, *_MIXED)):
        return False
    return any(parameter is not None for parameter in module._parameters.values())


def _full_inputs(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
    return map_tensors(_to_float32, args), map_tensors(_to_float32, kwargs)


def _full_outputs(_: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
    return map_tensors(_to_float32, output)


def _to_float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype == torch.bfloat16 else tensor
