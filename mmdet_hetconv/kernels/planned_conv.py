"""A convolution for inference whose kernel a plan chooses per input shape."""

from contextlib import nullcontext

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from .candidate import Candidate
from .eager import PackedDenseNCHW, TwoBranchNCHW
from .plan import Plan, layout_of
from .weights import ConvWeights, take_weights

# Input shapes of which the plan's answer is remembered. A detector that sees
# images of all sizes meets ever new ones.
MOST_SHAPES = 1000
WEIGHTS = ('grouped', 'foreign', 'bias', 'input_order', 'output_order')


@MODELS.register_module()
class PlannedConv2d(nn.Module):
    """relu(conv(x) + residual) by the fastest kernel for the shape of x.

    It stands for a trained HetConv2d, or for a dense nn.Conv2d, and holds its
    weights once, as buffers; nothing in it is trained. What a kernel prepares
    of them is kept for the kernels that the plan has chosen.

    Args:
        layer (nn.Module): a HetConv2d, or a nn.Conv2d without groups.
        plan (Plan, optional): shared by the layers of a model; by default
            one of its own.
        relu (bool): whether a ReLU follows.

    Shape:
        x (B, M, H, W) or (M, H, W); residual as the output; output as
        nn.Conv2d's.

    Raises:
        ValueError: the layer pads with something else than zeros.
    """

    # What ConvModule of mmcv reads of a convolution.
    transposed = False
    output_padding = (0, 0)
    groups = 1

    def __init__(
        self, layer: nn.Module, plan: Plan | None = None, relu: bool = False
    ):
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
        self.plan = plan if plan is not None else Plan()
        # By kind of candidate, dtype and device.
        self._prepared: dict[tuple, Candidate] = {}
        # By all of an input that matters: the plan's answers.
        self._chosen: dict[tuple, Candidate] = {}
        self.eval()

    def weights(self, dtype: torch.dtype | None = None) -> ConvWeights:
        """What the kernels take, in a dtype, by default the buffers'."""
        dtype = dtype or self.grouped.dtype

        def cast(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.to(dtype)

        return ConvWeights(
            grouped=cast(self.grouped),
            foreign=cast(self.foreign),
            bias=cast(self.bias),
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            p=self.p,
            input_order=self.input_order,
            output_order=self.output_order,
        )

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        if x.dim() == 3:
            residual = None if residual is None else residual[None]
            return self(x[None], residual)[0]
        # Entering a context costs as much as a small layer.
        plain = nullcontext()
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
            plain = torch.autocast(x.device.type, enabled=False)
        if residual is not None:
            residual = residual.to(x.dtype)
        with plain:
            return self._candidate(x, residual)(x, residual, self.relu)

    def _candidate(self, x: Tensor, residual: Tensor | None) -> Candidate:
        traced = torch.compiler.is_compiling() or torch.jit.is_tracing()
        if traced or (torch.is_grad_enabled() and x.requires_grad):
            # Operators that every tracer and autograd know.
            kind = PackedDenseNCHW if self.p == 1 else TwoBranchNCHW
            prepared = self._prepared.get((kind.name, x.dtype, x.device))
            return prepared or kind(self.weights(x.dtype), x)
        return self._planned(x, residual is not None)

    def _planned(self, x: Tensor, residual: bool) -> Candidate:
        key = (
            *(x.shape, x.dtype, x.device, layout_of(x), residual, self.relu),
            *(torch.get_num_threads(), id(self.plan), self.plan.edits),
        )
        if key not in self._chosen:
            if len(self._chosen) >= MOST_SHAPES:
                self._chosen.clear()
            self._chosen[key] = self._choose(x, residual)
        return self._chosen[key]

    @torch.no_grad()
    def _choose(self, x: Tensor, residual: bool) -> Candidate:
        weights = self.weights(x.dtype)
        kind, built = self.plan.choose(weights, x, residual, self.relu)
        place = (kind.name, x.dtype, x.device)
        if place not in self._prepared:
            self._prepared[place] = built or kind(weights, x)
        return self._prepared[place]

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

    def _apply(self, fn, recurse=True):
        self._forget()
        return super()._apply(fn, recurse)

    def _load_from_state_dict(self, *args, **kwargs):
        self._forget()
        super()._load_from_state_dict(*args, **kwargs)

    def __getstate__(self) -> dict:
        # Prepared weights may be in layouts that cannot be copied.
        return {**self.__dict__, '_prepared': {}, '_chosen': {}}

    def extra_repr(self) -> str:
        return (
            f'{self.in_channels}, {self.out_channels}, '
            f'kernel_size={self.kernel_size}, stride={self.stride}, '
            f'padding={self.padding}, dilation={self.dilation}, p={self.p}, '
            f'bias={self.bias is not None}, relu={self.relu}'
        )
