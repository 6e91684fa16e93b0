"""A convolution for inference whose kernel a plan chooses per input shape."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from ..layers.functional import output_size
from ..utils.progress import progress_bar
from .candidate import Candidate
from .eager import PackedDenseNCHW, TwoBranchNCHW
from .key import layout_of
from .plan import Plan
from .quantized import QuantizedTensor, raw
from .weights import ConvWeights, Int8, moving, take_weights

# Input shapes whose choice is cached: images of all sizes give ever new ones.
MOST_SHAPES = 1000
Shape = tuple[int, int, int, int]
WEIGHTS = ('grouped', 'foreign', 'bias', 'input_order', 'output_order')


def _check_residual(residual: Tensor, shape: Shape, device: torch.device) -> None:
    """Refuse a residual that would be broadcast, or read beyond its end."""
    if residual.shape != shape or residual.device != device:
        raise ValueError(
            f'PlannedConv2d: the residual is {tuple(residual.shape)} on '
            f'{residual.device}, the output {shape} on {device}'
        )


def _learns(x: Tensor, residual: Tensor | None) -> bool:
    return x.requires_grad or (residual is not None and residual.requires_grad)


@MODELS.register_module()
class PlannedConv2d(nn.Module):
    """relu(conv(x) + residual) by the fastest kernel for the shape of x.

    Replaces a trained HetConv2d or a dense nn.Conv2d for inference. Its weights are
    buffers, not parameters. Kernels that the plan chose keep a prepared copy of them.

    Args:
        layer (nn.Module): a HetConv2d, or a nn.Conv2d without groups.
        plan (Plan, optional): shared by the layers of a model; by default
            one of its own.
        relu (bool): whether a ReLU follows.

    Shape:
        x (B, M, H, W) or (M, H, W); residual as the output; output as
        nn.Conv2d's.

    Raises:
        ValueError: the layer pads with something else than zeros; a residual
            has not the shape of the output, or is on another device.
    """

    # What ConvModule of mmcv reads of a convolution.
    transposed = False
    output_padding = (0, 0)
    groups = 1

    grouped: Tensor
    foreign: Tensor | None
    bias: Tensor | None
    input_order: Tensor | None
    output_order: Tensor | None

    def __init__(self, layer: nn.Module, plan: Plan | None = None, relu: bool = False):
        super().__init__()
        weights = take_weights(layer)
        for name in WEIGHTS:
            self.register_buffer(name, getattr(weights, name))
        self.in_channels = weights.in_channels
        self.out_channels = weights.out_channels
        self.kernel_size = weights.kernel_size
        self.stride = weights.stride
        self.padding = weights.padding
        self.dilation = weights.dilation
        self.p = weights.p
        self.relu = relu
        # Inputs are cast to it; None leaves them as they are.
        self.compute_dtype: torch.dtype | None = None
        # How it computes in 8 bits, if it does.
        self._int8: Int8 | None = None
        self.plan = plan if plan is not None else Plan()
        # By kind of candidate, dtype and device.
        self._prepared: dict[tuple[Any, ...], Candidate] = {}
        # Choice and output shape, by every property of an input that matters.
        self._chosen: dict[tuple[Any, ...], tuple[Candidate, Shape]] = {}
        # Identity and version of the buffers when both were made.
        self._seen: dict[str, tuple[int, int]] = {}
        self._held: dict[str, Tensor | None] = {}
        self.eval()

    @property
    def int8(self) -> Int8 | None:
        """How it computes in 8 bits; None if it does not."""
        return self._int8

    @int8.setter
    def int8(self, int8: Int8 | None) -> None:
        self._int8 = int8
        self._forget()

    def weights(self, dtype: torch.dtype | None = None) -> ConvWeights:
        """What the kernels take, in a dtype, by default the buffers'."""
        dtype = dtype or self.grouped.dtype
        return ConvWeights(
            grouped=self.grouped.to(dtype),
            foreign=None if self.foreign is None else self.foreign.to(dtype),
            bias=self.bias,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            p=self.p,
            input_order=moving(self.input_order),
            output_order=moving(self.output_order),
            int8=self.int8,
        )

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        x = input
        if raw(x).dim() == 3:
            residual = None if residual is None else residual[None]
            return self(x[None], residual)[0]
        if self.int8 is not None:
            return self._compute(x, residual)
        if isinstance(x, QuantizedTensor):
            x = x.floats()
        if isinstance(residual, QuantizedTensor):
            residual = residual.floats()
        if self.compute_dtype is not None:
            x = x.to(self.compute_dtype)
        # Entering a context costs as much as a small layer.
        plain: AbstractContextManager[Any] = nullcontext()
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
            plain = torch.autocast(x.device.type, enabled=False)
        with plain:
            return self._compute(x, None if residual is None else residual.to(x.dtype))

    def _compute(self, x: Tensor, residual: Tensor | None) -> Tensor:
        candidate, shape = self._candidate(x, residual)
        if residual is not None:
            _check_residual(raw(residual), shape, raw(x).device)
        return candidate(x, residual, self.relu)

    def _candidate(self, x: Tensor, residual: Tensor | None) -> tuple[Candidate, Shape]:
        """What computes, and the shape of the output."""
        compiled = torch.compiler.is_compiling()
        # Dynamo cannot trace the question itself.
        traced = not compiled and torch._C._is_tracing()
        if not (compiled or traced):
            self._notice_changes()
        if compiled or traced or (torch.is_grad_enabled() and _learns(x, residual)):
            if self.int8 is not None:
                raise ValueError('PlannedConv2d: int8 is neither traced nor differentiated')
            # Operators that every tracer and autograd know.
            kind = PackedDenseNCHW if self.p == 1 else TwoBranchNCHW
            candidate = self._prepared.get((kind.name, x.dtype, x.device))
            if candidate is None and traced:
                # A trace is a thread's own: in another one it holds constants.
                with ThreadPoolExecutor(1) as another:
                    candidate = another.submit(self._prepare, kind, x).result()
            return candidate or kind(self.weights(x.dtype), x), self._output_shape(x)
        memory = raw(x)  # asked directly: a tensor of bytes answers slowly
        key = (
            *(type(x), memory.shape, memory.dtype, memory.device, layout_of(memory)),
            *(residual is not None, self.relu),
            *(torch.get_num_threads(), self.plan, self.plan.edits),
        )
        # One lookup only: another thread may clear the cache after it.
        known = self._chosen.get(key)
        if known is None:
            shape = self._output_shape(x)
            known = self._choose(x, residual is not None), shape
            if len(self._chosen) >= MOST_SHAPES:
                self._chosen.clear()
            self._chosen[key] = known
        return known

    def _output_shape(self, x: Tensor) -> Shape:
        """Of the output, once the input is one that nn.Conv2d takes."""
        if x.dim() != 4 or x.shape[1] != self.in_channels:
            raise RuntimeError(
                f'PlannedConv2d: the input is {tuple(x.shape)}, not (B, {self.in_channels}, H, W)'
            )
        if not x.dtype.is_floating_point:
            raise RuntimeError(f'PlannedConv2d: the input is {x.dtype}, no floating-point type')
        size = output_size(x.shape[2:], self.kernel_size, self.stride, self.padding, self.dilation)
        if min(size) < 1:
            raise RuntimeError(
                f'PlannedConv2d: an input of {tuple(x.shape[2:])} pixels is smaller than the '
                f'kernel {self.kernel_size} with padding {self.padding}, dilation {self.dilation}'
            )
        return (x.shape[0], self.out_channels, *size)

    def _notice_changes(self) -> None:
        """Forget what was prepared of buffers that were exchanged or changed in place."""
        seen, buffers = self._seen, self._buffers
        for name in WEIGHTS:
            tensor = buffers[name]
            if tensor is not None:
                version = 0 if tensor.is_inference() else tensor._version
                if seen.get(name) != (id(tensor), version):
                    self._forget()
                    # Held, so that no other one gets its id.
                    self._held = dict(buffers)
                    seen[name] = id(tensor), version

    @torch.no_grad()
    def _prepare(self, kind: type[Candidate], x: Tensor) -> Candidate:
        return kind(self.weights(x.dtype), x.detach())

    @torch.no_grad()
    # Outside of inference mode, as gradients may flow through it later.
    @torch.inference_mode(False)
    def _choose(self, x: Tensor, residual: bool) -> Candidate:
        weights = self.weights(x.dtype)
        kind, built = self.plan.choose(weights, x, residual, self.relu)
        place = (kind.name, x.dtype, x.device)
        candidate = self._prepared.get(place) or built or kind(weights, x)
        return self._prepared.setdefault(place, candidate)

    def extra_bytes(self) -> int:
        """Memory of prepared weights, beside the buffers."""
        return sum(
            tensor.numel() * tensor.element_size()
            for candidate in self._prepared.values()
            for tensor in candidate.prepared()
        )

    def _forget(self) -> None:
        self._prepared.clear()
        self._chosen.clear()

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        self._forget()
        return super()._apply(fn, recurse)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        self._forget()
        ordered = f'{prefix}input_order' in state_dict
        if f'{prefix}grouped' in state_dict and ordered != (self.input_order is not None):
            # The weights alone are another function.
            rest[-1].append(
                f"{prefix}input_order: the checkpoint's channel arrangement is not this layer's"
            )
            for key in [key for key in state_dict if key.startswith(prefix)]:
                del state_dict[key]
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def __getstate__(self) -> dict[str, Any]:
        # Prepared weights may be in layouts that cannot be copied.
        return {**self.__dict__, '_prepared': {}, '_chosen': {}, '_seen': {}, '_held': {}}

    def extra_repr(self) -> str:
        return (
            f'{self.in_channels}, {self.out_channels}, '
            f'kernel_size={self.kernel_size}, stride={self.stride}, '
            f'padding={self.padding}, dilation={self.dilation}, p={self.p}, '
            f'bias={self.bias is not None}, relu={self.relu}'
        )


def planned_convs(model: nn.Module) -> list[PlannedConv2d]:
    """The model's planned convolutions."""
    return [m for m in model.modules() if isinstance(m, PlannedConv2d)]


@contextmanager
def first_run(model: nn.Module, title: str = 'Timing kernels') -> Iterator[None]:
    """A bar that moves on by one for each planned convolution that has run."""
    convs = planned_convs(model)
    with progress_bar(title, len(convs), bool(convs)) as step:

        def once(conv: nn.Module) -> Callable[..., None]:
            def hook(*_: Any) -> None:
                handles.pop(conv).remove()
                step()

            return hook

        handles: dict[nn.Module, Any] = {}
        for conv in convs:
            handles[conv] = conv.register_forward_hook(once(conv))
        try:
            yield
        finally:
            for handle in handles.values():
                handle.remove()
