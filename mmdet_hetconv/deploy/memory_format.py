"""Feature maps for operators that read memory row by row.

A plan may leave feature maps with the channels last, which torch's operators
see by the strides. Kernels that take any memory for channels first, as those
of mmcv.ops do on the CPU, would compute on other numbers.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn


def takes_rows(module: nn.Module) -> bool:
    """Whether :func:`take_rows` saw the module."""
    return _rows_in in module._forward_pre_hooks.values()


def take_rows(module: nn.Module) -> None:
    """Hand a module its tensors with the channels first in memory."""
    if not takes_rows(module):
        module.register_forward_pre_hook(_rows_in, with_kwargs=True)


def give_rows(module: nn.Module) -> None:
    """Let a module put out its tensors with the channels first in memory."""
    if _rows_out not in module._forward_hooks.values():
        module.register_forward_hook(_rows_out)


def _rows_in(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
    return map_tensors(Tensor.contiguous, args), map_tensors(Tensor.contiguous, kwargs)


def _rows_out(_: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
    return map_tensors(Tensor.contiguous, output)


def map_tensors(change: Callable[[Tensor], Tensor], value: Any) -> Any:
    """The same with every tensor inside tuples, lists and dicts changed."""
    if isinstance(value, Tensor):
        return change(value)
    if type(value) in (tuple, list):
        return type(value)(map_tensors(change, item) for item in value)
    if type(value) is dict:
        return {key: map_tensors(change, item) for key, item in value.items()}
    return value
