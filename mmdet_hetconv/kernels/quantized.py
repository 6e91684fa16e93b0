"""Feature maps of 8 bits between convolutions that compute in integers."""

import ctypes
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .cpu.library import load_library
from .weights import Levels


class QuantizedTensor(Tensor):
    """A tensor of bytes that stand for scale * (byte - zero).

    Max-pooling gives bytes again. Everything else that torch does sees
    float32 values, so no operator takes the bytes for numbers.

    torch's own quantized dtypes are deprecated (pytorch issue 184982).
    """

    raw: Tensor
    levels: Levels

    @staticmethod
    def of(raw: Tensor, levels: Levels) -> 'QuantizedTensor':
        """The tensor of these bytes, uint8."""
        tensor = Tensor._make_subclass(QuantizedTensor, raw)
        tensor.raw, tensor.levels = raw, levels
        return tensor

    def floats(self) -> Tensor:
        """What it stands for, float32."""
        return (self.raw.float() - self.levels.zero) * self.levels.scale

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if keeps_bytes(func, args, kwargs):
            return _max_pool(*args, **kwargs)
        if func == _DTYPE:
            return torch.float32
        if func in _SHAPES:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        return func(*_as_floats(args), **_as_floats(kwargs))


def raw(x: Tensor) -> Tensor:
    """The bytes of a tensor that has some, else the tensor."""
    return x.raw if isinstance(x, QuantizedTensor) else x


_POOLS = (F.max_pool2d, torch.max_pool2d)
_ATTRIBUTES = {
    name: vars(torch._C.TensorBase)[name].__get__
    for name in (
        *('dtype', 'shape', 'ndim', 'device', 'requires_grad'),
        *('is_cuda', 'layout', 'is_sparse'),
    )
}
_DTYPE = _ATTRIBUTES.pop('dtype')
# What is true of the bytes is true of what they stand for.
_SHAPES = frozenset(
    (
        *(Tensor.dim, Tensor.size, Tensor.stride, Tensor.numel, Tensor.is_contiguous),
        *(Tensor.__len__, Tensor.__hash__, Tensor.ndimension, *_ATTRIBUTES.values()),
    )
)


def _as_floats(value: Any) -> Any:
    if isinstance(value, QuantizedTensor):
        return value.floats()
    if isinstance(value, list | tuple):
        return type(value)(map(_as_floats, value))
    if isinstance(value, dict):
        return {key: _as_floats(item) for key, item in value.items()}
    return value


def keeps_bytes(func: Any, args: Any, kwargs: dict[str, Any]) -> bool:
    """Whether a call makes bytes of bytes: max-pooling of images."""
    return (
        func in _POOLS
        and len(args) > 0
        and len(args) < 7
        and not kwargs.get('return_indices')
        and args[0].dim() == 4
        and load_library()[0] is not None
    )


def _pair(value: Any) -> tuple[int, int]:
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * 2 if len(values) == 1 else values


def _max_pool(
    x: QuantizedTensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor:
    """F.max_pool2d of bytes; torch's own refuses maps of more than 255 pixels.

    Outside of the map the smallest byte stands, as -inf does for floats. Floats are put
    out where windows with holes see nothing else: no byte is -inf.
    """
    kernel, padding, dilation = _pair(kernel_size), _pair(padding), _pair(dilation)
    stride = _pair(stride) if stride else kernel
    batch, channels, height, width = x.shape
    if dilation != (1, 1):
        where = torch.zeros(1, 1, height, width)
        where = F.max_pool2d(where, kernel, stride, padding, dilation, ceil_mode)
        if not where.isfinite().all():
            return F.max_pool2d(x.floats(), kernel, stride, padding, dilation, ceil_mode)
    shape = F.max_pool2d(
        torch.empty(x.shape, device='meta'), kernel, stride, padding, dilation, ceil_mode
    ).shape
    given = x.raw.contiguous(memory_format=torch.channels_last)
    y = torch.empty(shape, dtype=torch.uint8, memory_format=torch.channels_last)
    numbers = (batch, height, width, channels, *shape[2:], *kernel, *stride, *padding, *dilation)
    library, _ = load_library()
    assert library is not None  # see keeps_bytes()
    library.hetconv_max_pool(
        (ctypes.c_int64 * len(numbers))(*numbers),
        *(given.data_ptr(), y.data_ptr(), torch.get_num_threads()),
    )
    return QuantizedTensor.of(y, x.levels)
