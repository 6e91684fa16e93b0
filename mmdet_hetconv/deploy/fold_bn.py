"""Fold batch norms into the convolutions before them.

    bn(conv(x)) = conv'(x),  w' = w g / s,  b' = (b - mean) g / s + beta

with g, beta the norm's weight and bias and s = sqrt(var + eps). In a
HetConv2d both branches are scaled.
"""

from collections import Counter
from collections.abc import Iterator

import torch
from mmcv.cnn import ConvModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..layers import GroupPointwiseConv2d, HetConv2d
from ..layers.cost import CONVOLUTIONS, Convolution
from .class_code import EVERY, reached_children, runs_one_after_the_other
from .conv_module import keep_whole


def fold_bn(model: nn.Module) -> int:
    """Fold every batch norm that can be; nn.Identity takes its place.

    Folded are norms in inference mode that have statistics and directly
    follow a nn.Conv2d, a HetConv2d or a GroupPointwiseConv2d: in a
    ConvModule, in a nn.Sequential, or as conv1 and norm1 ... of mmdet's
    backbones. A convolution or norm that is used in two places stays as it
    is, and so does one that has hooks, or of whose parts the code of another
    module makes use.

    Args:
        model (nn.Module): changed in place.

    Returns:
        int: the number of norms folded.
    """
    uses = count_uses(model)
    reached = reached_modules(model)
    folded = 0
    for parent, conv, name in list(_pairs(model)):
        norm = parent.get_submodule(name)
        once = uses[id(conv)] == 1 and uses[id(norm)] == 1
        alone = not {id(conv), id(norm)} & reached
        if (
            once
            and alone
            and isinstance(conv, CONVOLUTIONS)
            and isinstance(norm, _BatchNorm)
            and _can_fold(conv, norm)
        ):
            _fold(conv, norm)
            setattr(parent, name, nn.Identity())
            if isinstance(parent, ConvModule):
                keep_whole(parent)
            folded += 1
    return folded


def count_uses(model: nn.Module) -> Counter[int]:
    """How many modules, or names in a module, hold each module; by id()."""
    return Counter(id(child) for module in model.modules() for child in module._modules.values())


def reached_modules(model: nn.Module) -> set[int]:
    """What must keep its parts: the id() of every module below a child that
    :func:`class_code.reached_children` names."""
    reached: set[int] = set()
    for module in model.modules():
        if _is_known(module):
            continue
        names = reached_children(module)
        for name, child in module._modules.items():
            if child is not None and (name in names or EVERY in names):
                reached.update(id(inner) for inner in child.modules())
    return reached


def _is_known(module: nn.Module) -> bool:
    return isinstance(module, HetConv2d | GroupPointwiseConv2d)


def has_hooks(*modules: nn.Module) -> bool:
    """Whether somebody sees or changes what goes into, or comes out of, one
    of these modules or of those inside them."""
    return any(
        inner._forward_hooks or inner._forward_pre_hooks
        for module in modules
        for inner in module.modules()
    )


def _pairs(model: nn.Module) -> Iterator[tuple[nn.Module, nn.Module, str]]:
    """(parent, convolution, name of the module that follows it)."""
    for module in model.modules():
        if isinstance(module, ConvModule):
            order = module.order
            follows = order.index('norm') == order.index('conv') + 1
            if module.with_norm and follows:
                yield module, module.conv, module.norm_name
        elif type(module) is nn.Sequential:
            children = list(module.named_children())
            for (_, first), (name, _) in zip(children, children[1:]):
                yield module, first, name
        else:
            for i in range(1, 4):
                norm_name = getattr(module, f'norm{i}_name', None)
                conv = getattr(module, f'conv{i}', None)
                # ResNeSt has the name of a norm that it removed, and a
                # pre-activation block has the norm before the convolution.
                if (
                    isinstance(conv, nn.Module)
                    and norm_name in module._modules
                    and runs_one_after_the_other(module, f'conv{i}', f'norm{i}')
                ):
                    yield module, conv, norm_name


def _can_fold(conv: Convolution, norm: _BatchNorm) -> bool:
    return (
        type(conv) in CONVOLUTIONS
        and not norm.training
        and norm.running_var is not None
        # spectral_norm and weight_norm are pre-hooks that set the weight.
        and not has_hooks(conv, norm)
    )


@torch.no_grad()
def _fold(conv: Convolution, norm: _BatchNorm) -> None:
    assert norm.running_mean is not None and norm.running_var is not None
    scale = torch.rsqrt(norm.running_var + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight
    shift = -norm.running_mean * scale
    if norm.bias is not None:
        shift = shift + norm.bias
    if isinstance(conv, HetConv2d):
        if conv.output_order is not None:
            filters = conv.output_order.argsort()
            scale, shift = scale[filters], shift[filters]
        if conv.pointwise is not None:
            _scale(conv.pointwise, scale)
        conv = conv.grouped
    elif isinstance(conv, GroupPointwiseConv2d):
        conv = conv.pointwise
    _scale(conv, scale)
    if conv.bias is not None:
        shift = shift + conv.bias * scale
    conv.bias = nn.Parameter(shift.to(conv.weight.dtype))


def _scale(conv: nn.Conv2d, scale: Tensor) -> None:
    # Not in place: another convolution may have the same weight.
    scale = scale.to(conv.weight.dtype).view(-1, 1, 1, 1)
    conv.weight = nn.Parameter(conv.weight * scale)
