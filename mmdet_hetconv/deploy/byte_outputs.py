"""Convolutions whose outputs nothing but convolutions read.

Between them feature maps may be bytes. Who reads what shows in a run: what
max-pooling makes of an output counts as that output, and every other
operation of torch reads floats.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..kernels import PlannedConv2d
from ..kernels.quantized import keeps_bytes, needs_no_values
from .memory_format import map_tensors


class _Readers(TorchFunctionMode):
    """What happens to the outputs of convolutions while it is entered.

    Attributes:
        read: names of convolutions whose outputs a convolution has read.
        floats: those whose outputs something else has read.
    """

    def __init__(self) -> None:
        super().__init__()
        self.read: set[str] = set()
        self.floats: set[str] = set()
        self.inside = False
        self._made: dict[int, str] = {}
        self._alive: list[Tensor] = []  # so that no two tensors have one id

    def name(self, tensor: Tensor, maker: str) -> None:
        self._made[id(tensor)] = maker
        self._alive.append(tensor)

    def makers(self, value: Any) -> set[str]:
        found = set()

        def look(tensor: Tensor) -> Tensor:
            found.add(self._made.get(id(tensor), ''))
            return tensor

        map_tensors(look, value)
        return found - {''}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if self.inside or needs_no_values(func):
            return result
        makers = self.makers((list(args), kwargs))
        if makers and keeps_bytes(func, args, kwargs):
            (maker,) = makers
            self.name(result, maker)
        else:
            self.floats |= makers
        return result


@torch.no_grad()
def byte_outputs(
    convs: dict[str, PlannedConv2d], run: Callable[[], Any], quantized: set[str]
) -> set[str]:
    """Names of the convolutions whose output may be bytes.

    Args:
        convs: all of a model, by name.
        run: the model's forward pass.
        quantized: names of those that read bytes.
    """
    readers = _Readers()
    handles = []

    def before(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, args: Any, kwargs: Any) -> None:
            makers = readers.makers((list(args), kwargs))
            (readers.read if name in quantized else readers.floats).update(makers)
            readers.inside = True

        return hook

    def after(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, args: Any, output: Tensor) -> None:
            readers.inside = False
            readers.name(output, name)

        return hook

    for name, conv in convs.items():
        handles.append(conv.register_forward_pre_hook(before(name), with_kwargs=True))
        handles.append(conv.register_forward_hook(after(name)))
    try:
        with readers:
            result = run()
    finally:
        for handle in handles:
            handle.remove()
    readers.floats |= readers.makers(result)
    return (readers.read - readers.floats) & quantized
