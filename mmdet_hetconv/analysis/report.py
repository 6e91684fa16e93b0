"""Tables, CSV and JSON of a detector's cost."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from torch import nn

from mmdet_hetconv.layers.group_pointwise import GroupPointwiseConv2d
from mmdet_hetconv.layers.hetconv import HetConv2d
from mmdet_hetconv.layers.shape import why_not_heterogeneous
from mmdet_hetconv.utils.table import format_table, share_saved, with_unit, write_rows

from .complexity import Complexity

COSTS = ('dense_macs', 'macs', 'executed_macs', 'dense_parameters', 'parameters')


def rows(results: Mapping[str, Complexity]) -> Iterator[dict]:
    """Component by component, then the total, of each result.

    Args:
        results: complexities by what they are to be called, 'p=4'.
    """
    for name, result in results.items():
        everything = result.components()
        for part in (*everything, 'total'):
            parts = everything if part == 'total' else [part]
            yield dict(
                model=name,
                component=part,
                height=result.shape[0],
                width=result.shape[1],
                het_layers=sum(map(result.heterogeneous, parts)),
                **{what: result.total(what, parts) for what in COSTS},
            )


def complexity_table(results: Mapping[str, Complexity]) -> str:
    """What `rows` gives as text, and what the numbers do not include."""
    head = ('model', 'component', 'HetConv layers', 'MACs dense', 'MACs', 'saved')
    head += ('MACs executed', 'parameters dense', 'parameters', 'saved')
    body = [
        (
            row['model'],
            row['component'],
            row['het_layers'],
            with_unit(row['dense_macs']),
            with_unit(row['macs']),
            share_saved(row['dense_macs'], row['macs']),
            with_unit(row['executed_macs']),
            with_unit(row['dense_parameters']),
            with_unit(row['parameters']),
            share_saved(row['dense_parameters'], row['parameters']),
        )
        for row in rows(results)
    ]
    lines = [format_table(head, body), '']
    result = next(iter(results.values()))
    height, width = result.shape
    lines.append(
        f'One image of {height} x {width} pixels (height x width). MACs: '
        'multiply-adds of convolutions and linear layers, by definition; '
        'executed: as two branches, with the zeros of the 1 x 1 one.'
    )
    if result.regions:
        regions = ', '.join(f'{n} {k}' for k, n in result.regions.items())
        lines.append(f'RoI head: for {regions} regions, as its test_cfg has it.')
    for name, result in results.items():
        if result.uncounted:
            lines.append(
                f'{name}: MACs not counted in ' + ', '.join(dict.fromkeys(result.uncounted))
            )
    return '\n'.join(lines)


def _kind(layer: nn.Module) -> str:
    if isinstance(layer, HetConv2d):
        return f'HetConv p={layer.p}'
    if isinstance(layer, GroupPointwiseConv2d):
        return f'group + point-wise, groups={layer.groupwise.groups}'
    return type(layer).__name__


def why_dense(layer: nn.Module, p: int) -> str:
    """Why a layer of a detector is not heterogeneous, as far as known."""
    if isinstance(layer, (HetConv2d, GroupPointwiseConv2d)):
        return ''
    if not isinstance(layer, nn.Conv2d):
        return 'not a convolution'
    if type(layer) is not nn.Conv2d:
        return f'built as {type(layer).__name__}'
    return (
        why_not_heterogeneous(layer, p) or 'its component was given no HetConv, or builds it plain'
    )


def _shape(layer: nn.Module) -> str:
    if isinstance(layer, nn.Linear):
        return f'{layer.in_features} -> {layer.out_features}'
    kernel = ' x '.join(map(str, layer.kernel_size))
    return f'{layer.in_channels} -> {layer.out_channels}, {kernel}'


def layer_table(result: Complexity) -> str:
    """Layer by layer, then in total: what it is, what it costs, and why it is dense."""
    parts = [c.layer.p for c in result.layers if hasattr(c.layer, 'p')]
    p = min(parts, default=4)
    body = [
        (
            cost.name,
            _shape(cost.layer),
            _kind(cost.layer),
            with_unit(cost.dense_macs),
            with_unit(cost.macs),
            with_unit(cost.parameters),
            why_dense(cost.layer, p),
        )
        for cost in result.layers
    ]
    others = sum(result.other_parameters.values())
    if others:
        body.append(('norms and others', '', '', '', '', with_unit(others), ''))
    totals = (with_unit(result.total(what)) for what in ('dense_macs', 'macs', 'parameters'))
    body.append(('total', '', '', *totals, ''))
    head = ('layer', 'shape', 'kind', 'MACs dense', 'MACs', 'parameters')
    switched = sum(map(result.heterogeneous, result.components()))
    return (
        format_table((*head, 'why dense'), body)
        + f'\n\n{switched} of {len(result.layers)} layers are heterogeneous.'
    )


def save_csv(results: Mapping[str, Complexity], path: str) -> None:
    """The rows as CSV, plain numbers."""
    write_rows(path, list(rows(results)))


def save_json(results: Mapping[str, Complexity], path: str) -> None:
    """The rows as a JSON list, plain numbers."""
    Path(path).write_text(json.dumps(list(rows(results)), indent=1) + '\n')
