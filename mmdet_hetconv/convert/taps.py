"""Where the features of a dense and of a converted network are compared.

At the outputs of every module that holds converted layers: residual blocks,
stages, the neck, the head, the network itself, and of every dense head. A
converted layer that stands in a mere list of layers is compared behind its
batch norm, if it has one.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..layers import HetConv2d
from ..trace import find_tensors, is_detector
from .predictions import find_predictors, is_predictor, prediction_errors

# A module's name and the number of its call in a forward pass, from 1 on.
Call = tuple[str, int]
# The same, and the number or the name of what it returned.
Named = tuple[str, int | str]


@dataclass
class Features:
    """What a forward pass gave.

    Attributes:
        outputs: by the names of the modules, one for each call. What is done to
            them in place afterwards, as activations are, is seen too.
        calls: the modules' names, in the order in which they finished.
    """

    outputs: dict[str, list[object]] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)


def find_taps(het: nn.Module) -> list[str]:
    """Names of the modules whose outputs are compared."""
    names = []
    for name, module in het.named_modules():
        if isinstance(module, HetConv2d):
            prefix, _, own = name.rpartition('.')
            parent = het.get_submodule(prefix)
            if isinstance(parent, (nn.Sequential, nn.ModuleList)):
                own = _behind(parent, own)
                names.append(f'{prefix}.{own}' if prefix else own)
        elif any(isinstance(child, HetConv2d) for child in module.modules()):
            # What a detector returns are boxes, of which ranks decide.
            names += [name] * (not is_detector(module))
    return names + [name for name in find_predictors(het) if name not in names]


def _behind(parent: nn.Module, own: str) -> str:
    """The batch norm that follows a layer in a list, or the layer."""
    names = [name for name, _ in parent.named_children()]
    following = names[names.index(own) + 1 :][:1]
    if following and isinstance(parent.get_submodule(following[0]), _BatchNorm):
        return following[0]
    return own


def _tensors(value: object) -> list[Tensor]:
    return [tensor for tensor in find_tensors(value) if tensor.is_floating_point()]


class _Enough(BaseException):
    """Ends a forward pass of which nothing more is compared."""


@contextmanager
def tapped(model: nn.Module, names: list[str], last: Call | None = None) -> Iterator[Features]:
    """What a forward pass inside the block fills.

    Args:
        names: of the modules whose outputs are kept.
        last: the call of one of them after which the block ends.
    """
    features = Features()

    def kept(name: str, forward: Callable[..., object]) -> Callable[..., object]:
        def run(*args: object, **kwargs: object) -> object:
            output = forward(*args, **kwargs)
            features.outputs.setdefault(name, []).append(output)
            features.calls.append(name)
            if last == (name, features.calls.count(name)):
                raise _Enough
            return output

        return run

    modules = {name: model.get_submodule(name) for name in names}
    before = {name: module.__dict__.get('forward') for name, module in modules.items()}
    for name, module in modules.items():
        # No hook: some detectors call the forward of their dense heads themselves.
        module.__dict__['forward'] = kept(name, module.forward)
    try:
        yield features
    except _Enough:
        pass
    finally:
        for name, module in modules.items():
            del module.__dict__['forward']
            if before[name] is not None:
                module.__dict__['forward'] = before[name]


def feature_errors(model: nn.Module, het: Features, dense: Features) -> dict[Named, Tensor]:
    """Relative errors of features, and those of the predictions of dense heads.

    Args:
        model: that gave one of them.
        het, dense: of the converted and of the dense network.

    Returns:
        dict: by name of the module and number of the tensor among its outputs,
        or what is predicted.
    """
    errors = relative_errors(het, dense)
    for name, outputs in het.outputs.items():
        head = model.get_submodule(name)
        if not is_predictor(head):
            continue
        for mine, theirs in zip(outputs, dense.outputs.get(name, ())):
            for what, error in prediction_errors(head, mine, theirs).items():
                errors[name, what] = errors.get((name, what), 0) + error
    return errors


def relative_errors(het: Features, dense: Features) -> dict[Named, Tensor]:
    """|het - dense|^2 / |dense|^2 of each compared tensor, once each.

    Of another number of images than the first (the RoIs of a two-stage
    detector) no tensor is compared: the two networks see other ones there.

    Returns:
        dict: by name of the module and number of the tensor among its outputs.
    """
    errors: dict[Named, Tensor] = {}
    seen: set[int] = set()
    images = None
    for name, outputs in het.outputs.items():
        pairs = zip(_tensors(outputs), _tensors(dense.outputs.get(name, ())))
        for number, (mine, theirs) in enumerate(pairs):
            images = len(mine) if images is None else images
            if id(mine) in seen or mine.shape != theirs.shape or len(mine) != images:
                continue
            seen.add(id(mine))
            # Squares of half-precision features overflow, and sums lose digits.
            mine, theirs = mine.float(), theirs.float()
            power = theirs.square().sum().clamp_min(torch.finfo(theirs.dtype).tiny)
            errors[name, number] = (mine - theirs).square().sum() / power
    return errors


def last_call(features: Features, errors: dict[Named, Tensor]) -> Call:
    """The last call of a module whose outputs are compared."""
    compared = {name for name, _ in errors}
    name = next(name for name in reversed(features.calls) if name in compared)
    return name, features.calls.count(name)
