"""What other modules get from planned convolutions.

A plan may leave feature maps channels-last, or in fewer bits. Operators of torch handle
both. Other modules without a planned convolution may run any code, so they get what the
network gave them before: float32, channels first.
"""

from collections.abc import Sequence
from typing import Any

import torch
from mmcv.cnn import Scale
from mmdet.models.necks.ssd_neck import L2Norm
from torch import Tensor, nn

from ..kernels import PlannedConv2d
from ..trace import Recording, map_tensors
from ..trace.kinds import OPERATIONS
from .rewriting.blocks import base_type

# Modules that take feature maps of any floating-point type and memory format.
EASY = (
    *(nn.Identity, nn.Dropout, nn.Dropout2d, nn.Flatten, nn.Unflatten, nn.PixelShuffle),
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.SiLU, nn.GELU, nn.ELU, nn.Hardswish, nn.Hardsigmoid),
    *(nn.Sigmoid, nn.Tanh, nn.Mish, nn.Softmax, nn.Hardtanh, nn.Softplus),
    *(nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.ZeroPad2d),
    *(nn.Upsample, nn.UpsamplingNearest2d, nn.UpsamplingBilinear2d),
    # Their weights are float32; they take inputs of fewer bits all the same.
    *(nn.GroupNorm, nn.LayerNorm, L2Norm, Scale),
)
# The same as functions.
EASY_FUNCTIONS = frozenset(
    ('relu', 'relu6', 'leaky_relu', 'silu', 'gelu', 'elu', 'hardswish', 'hardsigmoid', 'mish')
    + ('sigmoid', 'tanh', 'hardtanh', 'softplus', 'dropout', 'clamp', 'max_pool2d', 'avg_pool2d')
    + ('adaptive_avg_pool2d', 'adaptive_max_pool2d', 'interpolate', 'pad', 'pixel_shuffle')
    + ('add', 'sub', 'mul', 'div', 'iadd', 'isub', 'imul', 'cat', 'stack', 'mean', 'chunk')
    + ('split', 'getitem', 'view', 'reshape', 'flatten', 'permute', 'transpose', 'contiguous')
    + ('squeeze', 'unsqueeze', 'expand', 'unbind', 'clone', 'detach', 'maximum', 'minimum')
)


def is_easy(target: Any) -> bool:
    """Whether a module or function takes any floating-point type and memory format."""
    if isinstance(target, nn.Module):
        return type(target) in EASY
    name = getattr(target, '__name__', '').strip('_')
    return name in EASY_FUNCTIONS or name.removeprefix('r') in EASY_FUNCTIONS


def keep_inputs(model: nn.Module, recordings: Sequence[Recording]) -> None:
    """Give other modules that were called their inputs as before.

    Of nested modules the outermost gets the hook.
    """
    called = None
    if recordings:
        called = {module for recording in recordings for module in recording.called()}
    for module in _foreign(model, called):
        if not keeps_inputs(module):
            module.register_forward_pre_hook(_as_before, with_kwargs=True)


def keeps_inputs(module: nn.Module) -> bool:
    """Whether :func:`keep_inputs` has hooked the module."""
    return _as_before in module._forward_pre_hooks.values()


def _foreign(module: nn.Module, called: set[nn.Module] | None) -> list[nn.Module]:
    """The outermost called modules without a planned convolution.

    mmdet calls methods of RoI heads, not the heads themselves.
    """
    # Scripted modules take no hooks; the recorder sees what they read.
    if isinstance(module, PlannedConv2d | torch.jit.ScriptModule) or type(module) in EASY:
        return []
    ours = any(isinstance(inner, PlannedConv2d) for inner in module.modules())
    is_list = isinstance(module, nn.Sequential | nn.ModuleList)
    is_one = isinstance(module, OPERATIONS) or not (ours or is_list)
    if is_one and (called is None or module in called):
        return [module]
    return [found for child in module.children() for found in _foreign(child, called)]


def _as_before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
    # Modules of torch handle both memory formats.
    is_known = type(module).__module__.startswith('torch.nn.modules.')
    change = to_float32 if is_known else _rows_of_float32
    return map_tensors(change, args), map_tensors(change, kwargs)


def reading_kinds(
    convs: Sequence[PlannedConv2d], recordings: Sequence[Recording]
) -> dict[PlannedConv2d, set[type]]:
    """For each convolution, the types of modules whose code reads its output."""
    return {
        conv: {
            base_type(reader.scope.module)
            for recording in recordings
            for call in recording.calls_of(conv)
            for value in call.outputs
            for reader in recording.readers(value, call.number)
        }
        for conv in convs
    }


def give_rows(module: nn.Module) -> None:
    """Let a module return its tensors channels first."""
    if _rows_out not in module._forward_hooks.values():
        module.register_forward_hook(_rows_out)


def give_float32(module: nn.Module) -> None:
    """Let a module return float32."""
    if _float32_out not in module._forward_hooks.values():
        module.register_forward_hook(_float32_out)


def take_back(module: nn.Module) -> None:
    """Undo :func:`give_rows` and :func:`give_float32`."""
    for key, hook in list(module._forward_hooks.items()):
        if hook in (_rows_out, _float32_out):
            del module._forward_hooks[key]


def _rows_out(_: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
    return map_tensors(Tensor.contiguous, output)


def _float32_out(_: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
    return map_tensors(to_float32, output)


def _rows_of_float32(tensor: Tensor) -> Tensor:
    return to_float32(tensor).contiguous()


def to_float32(tensor: Tensor) -> Tensor:
    """bfloat16 as float32, anything else unchanged."""
    return tensor.float() if tensor.dtype == torch.bfloat16 else tensor
