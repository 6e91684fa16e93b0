"""Exchange the nn.Conv2d modules of a model for the layers of a conv_cfg.

For components that hard-code their convolutions. Those that take a conv_cfg
of their own need none of this.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.registry import MODELS
from torch import nn

from .cost import CONVOLUTIONS, Convolution, dense_macs_per_pixel, macs_per_pixel
from .hetconv import HetConv2d
from .shape import why_not_heterogeneous

# From a layer and its name to a conv_cfg, or to the reason to leave it.
Choose = Callable[[str, nn.Conv2d], dict[str, Any] | str]


@dataclass(frozen=True)
class ConvRecord:
    """The outcome for one convolution layer.

    Attributes:
        name: its name in the model; of a shared one, the first.
        layer: the convolution that is there now.
        reason: why it was left as it was; None if it was replaced.
        dense_parameters: of the convolution that was there.
    """

    name: str
    layer: Convolution
    reason: str | None
    dense_parameters: int

    @property
    def dense_macs(self) -> int:
        """MACs per output pixel of the convolution that was there."""
        return dense_macs_per_pixel(self.layer)

    @property
    def macs(self) -> int:
        """MACs per output pixel of the convolution that is there now."""
        return macs_per_pixel(self.layer)

    @property
    def parameters(self) -> int:
        return count_parameters(self.layer)


def count_parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def find_convs(model: nn.Module) -> dict[str, Convolution]:
    """Every convolution layer by its first name; parts of a layer are not listed."""
    found: dict[str, Convolution] = {}
    inside: tuple[str, ...] = ()
    for name, module in model.named_modules():
        if inside and name.startswith(inside):
            continue
        if isinstance(module, CONVOLUTIONS):
            found[name] = module
            if not isinstance(module, nn.Conv2d):
                inside = (*inside, f'{name}.' if name else '')
    return found


def _why_not_plain(conv: Convolution, holders: dict[int, int]) -> str | None:
    """Why replacing a convolution would change more than that layer; None if not."""
    if isinstance(conv, HetConv2d):
        return f'it is heterogeneous already, p={conv.p}'
    if type(conv) is not nn.Conv2d:
        return f'it is a {type(conv).__name__}'
    if not isinstance(conv._parameters.get('weight'), nn.Parameter):
        return 'its weight is computed from other parameters'
    if 'forward' in vars(conv):
        return 'its forward is replaced on the instance'
    if any(holders[id(p)] > 1 for p in conv.parameters()):
        return 'it shares a parameter with another module'
    return None


def _build(conv: nn.Conv2d, conv_cfg: dict[str, Any]) -> Convolution:
    """Build the layer of `conv_cfg` with the same shape, dtype and device."""
    with torch.device(conv.weight.device):
        layer: Convolution = MODELS.build(
            dict(
                conv_cfg,
                in_channels=conv.in_channels,
                out_channels=conv.out_channels,
                kernel_size=conv.kernel_size,
                stride=conv.stride,
                padding=conv.padding,
                dilation=conv.dilation,
                groups=conv.groups,
                bias=conv.bias is not None,
                padding_mode=conv.padding_mode,
            )
        )
    return layer.to(conv.weight.device, conv.weight.dtype)


def _take_over(layer: Convolution, conv: nn.Conv2d) -> None:
    """Move weights, flags and hooks from `conv` to `layer`."""
    if isinstance(layer, HetConv2d):
        layer.load_state_dict(layer.project(conv.weight, conv.bias))
    for name, parameter in layer.named_parameters():
        old = conv.bias if name.endswith('bias') else conv.weight
        if old is not None:
            parameter.requires_grad_(old.requires_grad)
    if not conv.weight.is_contiguous():
        # torch declares this argument for tensors only.
        layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    layer.train(conv.training)
    for name, value in vars(conv).items():
        # The very same dictionaries: a handle removes its hook from them.
        if '_hooks' in name or name == '_is_full_backward_hook':
            setattr(layer, name, value)


def _why_dense(conv: nn.Conv2d, conv_cfg: dict[str, Any]) -> str:
    """Why the factory of `conv_cfg` built a plain convolution."""
    reason = None
    if conv_cfg['type'] == 'HetConv':
        reason = why_not_heterogeneous(conv, conv_cfg.get('p', 4))
    return reason or f'{conv_cfg} stands for a plain convolution here'


def replace_convs(model: nn.Module, conv_cfg: dict[str, Any] | Choose) -> list[ConvRecord]:
    """Replace convolutions in place by the layers of a conv_cfg.

    The weights of a HetConv layer are projected from the dense ones; the
    paper's rivals compute another function and start from their own
    initialisation. Kept are: sharing of a module between several places,
    dtype, device, memory format, requires_grad of weight and bias, the
    training flag, and hooks. An optimizer made before holds the old
    parameters and has to be made again.

    Left as they are: what the conv_cfg builds as a plain nn.Conv2d, every
    subclass of nn.Conv2d, and convolutions that share a parameter with
    another module or whose forward is replaced on the instance.

    Args:
        model (nn.Module): what holds the convolutions.
        conv_cfg (dict | Callable): as ``conv_cfg`` of mmdet's components, or
            a function of a layer's name and the layer that returns one, or
            the reason (str) to leave that layer.

    Returns:
        list[ConvRecord]: every convolution layer of the model.

    Raises:
        ValueError: `model` is itself a convolution.
    """
    if isinstance(model, CONVOLUTIONS):
        raise ValueError(
            'replace_convs replaces convolutions inside a module, got a '
            f'{type(model).__name__} itself'
        )
    holders: dict[int, int] = {}
    for module in model.modules():
        for parameter in module._parameters.values():
            holders[id(parameter)] = holders.get(id(parameter), 0) + 1

    records = []
    replacements: dict[nn.Module, Convolution] = {}
    for name, conv in find_convs(model).items():
        layer: Convolution = conv
        dense_parameters = count_parameters(conv)
        reason = _why_not_plain(conv, holders)
        if isinstance(conv, nn.Conv2d) and reason is None:
            choice = conv_cfg(name, conv) if callable(conv_cfg) else conv_cfg
            if isinstance(choice, str):
                reason = choice
            else:
                layer = _build(conv, choice)
                if type(layer) is nn.Conv2d:
                    layer, reason = conv, _why_dense(conv, choice)
                else:
                    _take_over(layer, conv)
                    replacements[conv] = layer
        records.append(ConvRecord(name, layer, reason, dense_parameters))

    put_modules(model, replacements)
    return records


def put_modules(model: nn.Module, new: Mapping[nn.Module, nn.Module]) -> None:
    """Exchange modules in every place where the model holds them."""
    for module in list(model.modules()):
        for name, child in module._modules.items():
            if child is not None and child in new:
                setattr(module, name, new[child])
