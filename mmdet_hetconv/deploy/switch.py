"""Turn a trained model into its inference form."""

from mmcv.cnn import ConvModule
from torch import Tensor, nn

from ..kernels import Plan, PlannedConv2d
from ..layers import HetConv2d
from .blocks import DeployedBlock, block_convs
from .fold_bn import fold_bn


def switch_to_deploy(model: nn.Module, plan: Plan | None = None) -> nn.Module:
    """Fold and fuse for inference, and let a plan choose the kernels.

    Batch norms are folded into the convolutions before them. Every HetConv2d
    and every dense convolution becomes a PlannedConv2d, which takes over the
    ReLU that follows in a ConvModule, in a nn.Sequential and in mmdet's
    residual blocks, and those blocks' additions. The function stays the same;
    the model can no longer be trained. Switching again changes nothing.

    Args:
        model (nn.Module): changed in place, and put into inference mode.
        plan (Plan, optional): made by default; it is an attribute of every
            PlannedConv2d.

    Returns:
        nn.Module: the model; another module only if the model itself is a
        single convolution or block.
    """
    model.eval()
    fold_bn(model)
    return _Switch(plan if plan is not None else Plan()).visit(model)


def planned_convs(model: nn.Module) -> list[PlannedConv2d]:
    """The model's planned convolutions."""
    return [m for m in model.modules() if isinstance(m, PlannedConv2d)]


class _Switch:
    """One walk over a model; a module in two places is replaced once."""

    def __init__(self, plan: Plan):
        self.plan = plan
        self.done: dict[nn.Module, nn.Module] = {}

    def visit(self, module: nn.Module) -> nn.Module:
        if module not in self.done:
            self.done[module] = self._replace(module)
        return self.done[module]

    def _replace(self, module: nn.Module) -> nn.Module:
        if isinstance(module, (PlannedConv2d, DeployedBlock)):
            return module
        if _is_plannable(module):
            return PlannedConv2d(module, self.plan)
        convs = block_convs(module)
        if convs and all(map(_is_plannable, convs)):
            downsample = module.downsample
            return DeployedBlock(
                [PlannedConv2d(conv, self.plan, relu=True) for conv in convs],
                None if downsample is None else self.visit(downsample),
            )
        # named_children() would leave out the second place of a child.
        for name, child in list(module._modules.items()):
            if child is not None:
                setattr(module, name, self.visit(child))
        if type(module).__module__.startswith('mmcv.ops'):
            _read_row_by_row(module)
        elif isinstance(module, ConvModule):
            _fuse_activation(module)
        elif type(module) is nn.Sequential:
            _fuse_relus(module)
        return module


def _read_row_by_row(module: nn.Module) -> None:
    """Hand an operator of mmcv its inputs in the layout that it expects.

    RoIAlign on the CPU takes any memory for channels first, and a plan may
    leave feature maps with the channels last.
    """
    if _contiguous not in module._forward_pre_hooks.values():
        module.register_forward_pre_hook(_contiguous)


def _contiguous(_, inputs: tuple) -> tuple:
    return tuple(
        x.contiguous() if isinstance(x, Tensor) else x for x in inputs
    )


def _is_plannable(module: nn.Module) -> bool:
    if module._forward_hooks or module._forward_pre_hooks:
        return False
    if not isinstance(module, HetConv2d) and (
        type(module) is not nn.Conv2d or module.groups != 1
    ):
        return False
    return module.padding_mode == 'zeros' and not isinstance(
        module.padding, str
    )


def _fuse_activation(module: ConvModule) -> None:
    """ConvModule: conv, a folded norm, ReLU."""
    if (
        not isinstance(module.conv, PlannedConv2d)
        or not module.with_activation
    ):
        return
    between = module.order[module.order.index('conv') + 1 :]
    norm = module.norm if module.with_norm else None
    folded = norm is None or type(norm) is nn.Identity
    if (
        type(module.activate) is nn.ReLU
        and folded
        and between in (('norm', 'act'), ('act',), ('act', 'norm'))
    ):
        module.conv.relu = True
        module.activate = nn.Identity()


def _fuse_relus(sequence: nn.Sequential) -> None:
    """A planned convolution and the ReLU behind it, if that is in place.

    A backbone may take outputs from inside its nn.Sequential (SSDVGG does).
    An in-place ReLU changes the convolution's output for whoever holds it, so
    nobody can see the difference.
    """
    names = [
        name
        for name, child in sequence.named_children()
        if type(child) is not nn.Identity
    ]
    for conv_name, name in zip(names, names[1:]):
        conv, relu = sequence.get_submodule(conv_name), getattr(sequence, name)
        if (
            isinstance(conv, PlannedConv2d)
            and type(relu) is nn.ReLU
            and relu.inplace
            and not relu._forward_hooks
        ):
            conv.relu = True
            setattr(sequence, name, nn.Identity())
