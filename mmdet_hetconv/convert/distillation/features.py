"""Where the features of a dense and of a converted network are compared.

They are compared at the outputs of every module that holds converted layers (residual
blocks, stages, the neck, the head, the network itself) and of every dense head. A module
with more layers than a block, such as a list or a traced graph, is compared layer by
layer, each behind the norm and activation that are its only readers.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ...layers import HetConv2d
from ...trace import Recording, find_tensors, is_detector
from ...trace.recording import is_idle
from .predictions import find_predictors, is_predictor, prediction_errors

# A module with at most this many converted layers of its own is compared at its output only.
BLOCK = 3
# Norms and activations of torch that a layer is compared behind.
FOLLOWING = (
    *(_BatchNorm, nn.GroupNorm, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.SiLU),
    *(nn.GELU, nn.Hardswish, nn.ELU, nn.Mish),
)
# The least variance by which a channel's error is divided, relative to the median channel's.
LEAST_SPREAD = 1e-2

# A module's name and the number of its call in a forward pass, from 1 on.
Call = tuple[str, int]
# The same, and the number or the name of what it returned.
Named = tuple[str, int | str]


@dataclass
class Features:
    """Outputs of the tapped modules in one forward pass.

    Attributes:
        outputs: by module name, one for each call. They are not copied, so changes that
            are made to them in place afterwards, such as activations, are included.
        calls: the modules' names, in the order in which they finished.
    """

    outputs: dict[str, list[object]] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)


def find_taps(het: nn.Module, recording: Recording | None = None) -> list[str]:
    """Names of the modules whose outputs are compared.

    Args:
        recording: of `het`, from which it is known what follows on a layer; without one,
            only what follows in an nn.Sequential is.
    """
    names = []
    modules = {module: name for name, module in het.named_modules()}
    for name, module in het.named_modules():
        if isinstance(module, HetConv2d):
            parent = het.get_submodule(name.rpartition('.')[0])
            held = [child for child in parent.children() if isinstance(child, HetConv2d)]
            if isinstance(parent, (nn.Sequential, nn.ModuleList)) or len(held) > BLOCK:
                behind = _behind(module, parent, recording)
                names.append(modules.get(behind, name))
        elif any(isinstance(child, HetConv2d) for child in module.modules()):
            # What a detector returns are boxes, of which ranks decide.
            names += [name] * (not is_detector(module))
    names = list(dict.fromkeys(names))
    return names + [name for name in find_predictors(het) if name not in names]


def _behind(layer: nn.Module, parent: nn.Module, recording: Recording | None) -> nn.Module:
    """The last norm or activation that alone reads a layer's output, or the layer."""
    if recording is None:
        children = list(parent.children())
        following = children[children.index(layer) + 1 :][:1]
        return following[0] if following and isinstance(following[0], _BatchNorm) else layer
    while True:
        calls = recording.calls_of(layer)
        if len(calls) != 1:
            return layer
        readers = {
            reader.target if reader.is_module else None
            for value in calls[0].outputs
            for reader in recording.readers(value, calls[0].number)
            if not is_idle(reader)
        }
        (follower,) = readers if len(readers) == 1 else (None,)
        if not isinstance(follower, FOLLOWING) or len(recording.calls_of(follower)) != 1:
            return layer
        layer = follower


def _tensors(value: object) -> list[Tensor]:
    return [tensor for tensor in find_tensors(value) if tensor.is_floating_point()]


class _Enough(BaseException):
    """Ends a forward pass after the last output that is compared."""


@contextmanager
def tapped(model: nn.Module, names: list[str], last: Call | None = None) -> Iterator[Features]:
    """Collect outputs during the forward pass that the `with` block runs.

    Args:
        names: of the modules whose outputs are kept.
        last: stop the forward pass after this call of one of them.
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

    What the network itself returns is compared by :func:`channel_error`.

    Tensors of another batch size than the first (RoIs of a two-stage detector) are
    skipped: the two networks see different regions there.

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
            if not name and mine.dim() > 1:
                errors[name, number] = channel_error(mine, theirs)
                continue
            power = theirs.square().sum().clamp_min(torch.finfo(theirs.dtype).tiny)
            errors[name, number] = (mine - theirs).square().sum() / power
    return errors


def channel_error(het: Tensor, dense: Tensor) -> Tensor:
    """The mean over the channels of |het - dense|^2 / |dense - its mean|^2.

    The channels of an output may mean different things, boxes in pixels and scores: each
    counts by how much it varies, so that none drowns the others.

    Shape:
        het, dense: (B, C), (B, C, H, W); of (B, M, N) the shorter axis has the channels,
        of five or more the last.
    """
    axis = 1
    if dense.dim() > 4 or (dense.dim() == 3 and dense.shape[2] < dense.shape[1]):
        axis = dense.dim() - 1
    het, dense = het.movedim(axis, 0).flatten(1), dense.movedim(axis, 0).flatten(1)
    spread = dense.var(1, correction=0)
    least = LEAST_SPREAD * spread.median().clamp_min(torch.finfo(spread.dtype).tiny)
    return ((het - dense).square().mean(1) / spread.clamp_min(least)).mean()


def output_errors(errors: dict[Named, Tensor]) -> dict[Named, Tensor]:
    """Keep the errors of the predictions of dense heads, else of the outputs.

    All errors are kept if neither was compared.
    """
    predicted = {key: error for key, error in errors.items() if isinstance(key[1], str)}
    returned = {key: error for key, error in errors.items() if not key[0]}
    return predicted or returned or errors


def last_call(features: Features, errors: dict[Named, Tensor]) -> Call:
    """The last call of a module whose outputs are compared."""
    compared = {name for name, _ in errors}
    name = next(name for name in reversed(features.calls) if name in compared)
    return name, features.calls.count(name)
