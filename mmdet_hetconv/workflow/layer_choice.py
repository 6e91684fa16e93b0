"""A p for each layer of a detector, under a budget of MACs or milliseconds."""

import copy
from collections.abc import Callable, Mapping, Sequence

import torch
from mmcv.cnn import ConvModule
from mmdet.registry import MODELS
from mmengine.config import Config
from torch import nn

from ..analysis.complexity import LayerCost
from ..analysis.config import count_config, input_shape
from ..analysis.layer_times import layer_times
from ..convert import choose_p, find_pairs, layer_errors
from ..convert.convert_model import matches
from ..deploy import switch_to_deploy
from ..layers.functional import taps_per_filter
from ..layers.replace import find_convs
from ..layers.shape import why_not_heterogeneous
from ..utils.announce import announce
from ..utils.errors import UserError
from ..utils.image_channels import image_channels
from ..utils.progress import progress_bar
from ..utils.table import format_table

# What a layer's p may be, where it fits.
CHOICES = (1, 2, 4, 8, 16)

# Heads of dense detectors, where convolutions that nothing follows predict.
HEADS = ('bbox_head', 'rpn_head')
# Of an RPN, whose ReLU is a function.
HIDDEN = 'rpn_conv'
ByLayer = dict[str, dict[int, float]]


def converted(
    cfg: Config, dense_model: dict, layers: Mapping[str, int], arrangement: str = 'blocked'
) -> Config:
    """A copy of a config whose model is the dense one with a p for each named layer."""
    result = copy.deepcopy(cfg)
    layers = {name: p for name, p in layers.items() if p > 1}
    result.model = dict(type='ConvertedModel', model=dense_model, layers=layers)
    if arrangement != 'blocked':
        result.model.arrangement = arrangement
    imports = list((cfg.get('custom_imports') or {}).get('imports', []))
    result.custom_imports = dict(imports=[*dict.fromkeys([*imports, 'mmdet_hetconv'])])
    return result


def eligible_layers(model: nn.Module, p: int, exclude: Sequence[str]) -> dict[str, int]:
    """The convolutions that p fits and that are not predictors, by name.

    Raises:
        UserError: there are none.
    """
    modules = dict(model.named_modules())
    found = {}
    for name, conv in find_convs(model).items():
        head, _, rest = name.partition('.')
        parent = modules[name.rpartition('.')[0]]
        predicts = head in HEADS and not isinstance(parent, ConvModule) and rest != HIDDEN
        if type(conv) is not nn.Conv2d or predicts or matches(name, *exclude):
            continue
        if why_not_heterogeneous(conv, p) is None:
            found[name] = p
    if not found:
        raise UserError(f'p={p} fits none of the convolutions that are not excluded')
    return found


def choose_layers(
    dense: nn.Module,
    het: nn.Module,
    cfg: Config,
    batches: Sequence,
    forward: Callable,
    target_macs: float | None,
    target_ms: float | None,
) -> dict[str, int]:
    """Choose a p for each layer that is heterogeneous in `het`; prints a table.

    Args:
        cfg: of the dense detector.
        target_macs: share of the dense detector's MACs, of all components.
        target_ms: milliseconds of backbone, neck and dense head of one image,
            deployed in fp32 on this machine.

    Raises:
        UserError: a budget that is out of reach, or that the dense detector keeps.
        ValueError: see :func:`layer_errors`.
    """
    choices = {
        name: [p for p in CHOICES if p == 1 or why_not_heterogeneous(conv, p) is None]
        for name, conv in find_pairs(dense, het).items()
    }
    if target_macs is not None:
        costs, rest, whole = _macs(cfg, choices)
        budget, unit = target_macs * whole, 1 / whole
        asked, counted = f'--target-macs {target_macs:g}', 'counted'
    else:
        costs, rest = _milliseconds(dense, cfg, choices)
        budget, unit = target_ms or 0.0, 1.0
        asked, counted = f'--target-ms {target_ms:g}', 'measured of the deployed form in fp32'
    least = rest + sum(min(by_p.values()) for by_p in costs.values())
    if budget < least:
        raise UserError(f'{asked} is out of reach, the least is {least * unit:.3g}')
    if rest + sum(by_p[1] for by_p in costs.values()) <= budget:
        raise UserError(f'{asked}: the dense detector is within it already')
    announce(f'{len(costs)} layers are measured, each at p = {", ".join(map(str, CHOICES))}')
    measured = {name: choices[name] for name in costs}
    with progress_bar('Errors of layers', len(batches) + len(measured)) as step:

        def run(model: nn.Module, batch: dict) -> None:
            forward(model, batch)
            step()

        errors = layer_errors(dense, batches, run, measured, step)
    chosen = choose_p(errors, costs, budget - rest)
    spent = rest + sum(costs[name][p] for name, p in chosen.items())
    rows = [
        (name, p, f'{errors[name][p]:.3g}', f'{100 * costs[name][p] / costs[name][1]:.0f} %')
        for name, p in chosen.items()
    ]
    announce(format_table(('layer', 'p', 'relative squared error', 'cost, of dense'), rows))
    announce(f'{asked}: {spent * unit:.3g} by what was {counted}')
    return chosen


def macs_by_p(dense: LayerCost, choices: Sequence[int]) -> dict[int, float]:
    """The MACs of a convolution at each p, from those of the dense one."""
    size = dense.layer.in_channels, dense.layer.kernel_size
    taps = taps_per_filter(*size, 1)
    return {p: dense.macs * taps_per_filter(*size, p) / taps for p in choices}


def _macs(cfg: Config, choices: dict[str, list[int]]) -> tuple[ByLayer, float, float]:
    """MACs of each layer at each p, of all others, and of the dense whole."""
    counts = count_config(cfg.model, input_shape(cfg))
    dense = {layer.name: layer for layer in counts.layers if layer.name in choices}
    costs = {name: macs_by_p(cost, choices[name]) for name, cost in dense.items()}
    whole = counts.total('dense_macs')
    return costs, whole - sum(cost.macs for cost in dense.values()), whole


def _milliseconds(
    dense: nn.Module, cfg: Config, choices: dict[str, list[int]]
) -> tuple[ByLayer, float]:
    """Milliseconds of each layer at each p that runs here, and of the rest."""
    deployed = {}
    for p in CHOICES:
        layers = {name: p for name, fitting in choices.items() if p in fitting}
        if layers:
            model = MODELS.build(converted(cfg, cfg.model, layers).model).eval()
            model.load_state_dict(dense.state_dict())
            deployed[p] = switch_to_deploy(model)
    images = torch.zeros(1, image_channels(dense), *input_shape(cfg))
    times, totals = layer_times(deployed, images)
    costs = {
        name: {p: times[name][p] for p in fitting}
        for name, fitting in choices.items()
        if name in times
    }
    return costs, totals[1] - sum(by_p[1] for by_p in costs.values())
