"""Turn a trained model into its inference form."""

from collections.abc import Collection, Sequence
from typing import Any

import torch
from mmcv.cnn import ConvModule
from torch import nn

from ..kernels import Plan, PlannedConv2d, planned_convs
from ..layers import HetConv2d
from .blocks import DeployedBlock, block_convs
from .class_code import calls_view, ignores_strides, runs_once, runs_one_after_the_other
from .conv_module import keep_whole
from .fold_bn import count_uses, fold_bn, has_hooks, reached_modules
from .heads import find_heads
from .memory_format import give_rows, take_rows
from .precision import check_precision, set_precision
from .quantization import quantize
from .whole_run import detect


def switch_to_deploy(
    model: nn.Module,
    plan: Plan | None = None,
    *,
    precision: str = 'fp32',
    calibration: Sequence[Any] = (),
    keep: Collection[str] = (),
) -> nn.Module:
    """Fold and fuse for inference, and let a plan choose the kernels.

    Batch norms are folded into the convolutions before them. Every HetConv2d
    and every dense convolution becomes a PlannedConv2d, which takes over the
    ReLU that follows in a ConvModule, in a nn.Sequential and in mmdet's
    residual blocks, and those blocks' additions. The function stays the same;
    the model can no longer be trained. Switching again changes nothing.

    What others see stays as it is: a module with forward hooks is not
    exchanged, nor fused with another, and neither is one of whose parts
    another module's code makes use (TOOD multiplies with a convolution's
    weight). Operators that read memory row by row get it so.

    Args:
        model (nn.Module): changed in place, and put into inference mode.
        plan (Plan, optional): made by default; it is an attribute of every
            PlannedConv2d.
        precision (str): 'fp32', 'bf16' or 'int8', in which convolutions
            compute. What goes into the model and comes out stays float32.
        calibration (Sequence[Tensor]): for int8, inputs of the model, or
            images for a detector of mmdet, normalised and of its input's size.
        keep (Collection[str]): for int8, names of layers that do not compute
            in it, see :func:`~mmdet_hetconv.deploy.quantization.quantize`.

    Returns:
        nn.Module: the model; another module only if the model itself is a
        single convolution or block.

    Raises:
        ValueError: a precision that is unknown, or not to be had here; int8
            without calibration, or with inputs that give other than finite
            numbers.
    """
    weight = next(model.parameters(), None)
    check_precision(precision, torch.device('cpu') if weight is None else weight.device)
    if precision == 'int8' and not len(calibration):
        raise ValueError("precision='int8' needs calibration inputs, there are none")
    model.eval()
    fold_bn(model)
    plan = plan if plan is not None else Plan()
    model = _Switch(model, plan).visit(model)
    for head in find_heads(model):
        if calls_view(head):
            give_rows(head)
    set_precision(model, precision)
    if precision == 'int8':
        quantize(model, calibration, detect if find_heads(model) else _call, keep=keep)
    return model


def _call(model: nn.Module, batch: Any) -> Any:
    return model(batch)


class _Switch:
    """One walk over a model; a module in two places is replaced once."""

    def __init__(self, model: nn.Module, plan: Plan):
        self.plan = plan
        self.uses = count_uses(model)
        self.reached = reached_modules(model)
        self.done: dict[nn.Module, nn.Module] = {}

    def visit(self, module: nn.Module) -> nn.Module:
        if module not in self.done:
            self.done[module] = self._replace(module)
        return self.done[module]

    def _replace(self, module: nn.Module) -> nn.Module:
        if isinstance(module, (PlannedConv2d, DeployedBlock)):
            return module
        if id(module) in self.reached:
            return module
        if _is_plannable(module):
            return PlannedConv2d(module, self.plan)
        convs = block_convs(module)
        if convs and all(map(_is_plannable, convs)):
            downsample = module._modules.get('downsample')
            return DeployedBlock(
                [PlannedConv2d(conv, self.plan, relu=True) for conv in convs],
                None if downsample is None else self.visit(downsample),
            )
        shared = self._shared_names(module)
        # named_children() would leave out the second place of a child.
        for name, child in list(module._modules.items()):
            if child is not None:
                setattr(module, name, self.visit(child))
        if ignores_strides(module):
            take_rows(module)
            for conv in planned_convs(module):
                give_rows(conv)
        elif isinstance(module, ConvModule):
            _fuse_activation(module, shared)
        elif type(module) is nn.Sequential:
            _fuse_relus(module, shared)
        elif {'conv1', 'relu'} <= set(module._modules):
            _fuse_stem(module, shared)
        return module

    def _shared_names(self, module: nn.Module) -> set[str]:
        """The children that stand in another place, too."""
        return {name for name, child in module._modules.items() if self.uses[id(child)] > 1}


def _is_plannable(module: nn.Module) -> bool:
    if has_hooks(module):
        return False
    if not isinstance(module, HetConv2d) and (type(module) is not nn.Conv2d or module.groups != 1):
        return False
    return module.padding_mode == 'zeros' and not isinstance(module.padding, str)


def _fuse_activation(module: ConvModule, shared: set[str]) -> None:
    """ConvModule: conv, a folded norm, ReLU."""
    if not isinstance(module.conv, PlannedConv2d):
        return
    keep_whole(module)
    if not module.with_activation or 'conv' in shared:
        return
    between = module.order[module.order.index('conv') + 1 :]
    norm = module.norm if module.with_norm else None
    folded = norm is None or _does_nothing(norm)
    if (
        type(module.activate) is nn.ReLU
        and not has_hooks(module.activate)
        and folded
        and between in (('norm', 'act'), ('act',), ('act', 'norm'))
    ):
        module.conv.relu = True
        module.activate = nn.Identity()


def _fuse_relus(sequence: nn.Sequential, shared: set[str]) -> None:
    """A planned convolution and the ReLU behind it, if that is in place.

    A backbone may take outputs from inside its nn.Sequential (SSDVGG does).
    An in-place ReLU changes the convolution's output for whoever holds it, so
    nobody can see the difference.
    """
    names = [name for name, child in sequence._modules.items() if not _does_nothing(child)]
    for conv_name, name in zip(names, names[1:]):
        conv, relu = sequence._modules[conv_name], sequence._modules[name]
        if (
            isinstance(conv, PlannedConv2d)
            and conv_name not in shared
            and type(relu) is nn.ReLU
            and relu.inplace
            and not has_hooks(relu)
        ):
            conv.relu = True
            setattr(sequence, name, nn.Identity())


def _fuse_stem(module: nn.Module, shared: set[str]) -> None:
    """mmdet's ResNets: conv1, a folded norm1, relu."""
    conv, relu = module._modules['conv1'], module._modules['relu']
    norm = module._modules.get(getattr(module, 'norm1_name', ''))
    if (
        isinstance(conv, PlannedConv2d)
        and not {'conv1', 'relu'} & shared
        and norm is not None
        and _does_nothing(norm)
        and type(relu) is nn.ReLU
        and not has_hooks(relu)
        and runs_once(module, 'relu')
        and runs_one_after_the_other(module, 'conv1', 'norm1')
        and runs_one_after_the_other(module, 'norm1', 'relu')
    ):
        conv.relu = True
        module.relu = nn.Identity()


def _does_nothing(module: nn.Module) -> bool:
    return type(module) is nn.Identity and not has_hooks(module)
