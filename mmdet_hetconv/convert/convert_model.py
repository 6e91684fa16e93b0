"""Turn the convolutions of any model heterogeneous, in place."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from mmdet_hetconv.convert.exchange import ASKED, READ, Way, keep_way
from mmdet_hetconv.layers.replace import ConvRecord, find_convs, replace_convs
from mmdet_hetconv.layers.shape import check_p
from mmdet_hetconv.utils.table import format_table, share_saved, with_unit


@dataclass(frozen=True)
class ConversionReport:
    """What :func:`convert_model` did.

    Attributes:
        records: every convolution layer of the model, in its order.
    """

    records: list[ConvRecord]

    @property
    def converted(self) -> list[ConvRecord]:
        return [r for r in self.records if r.reason is None]

    @property
    def left(self) -> list[ConvRecord]:
        return [r for r in self.records if r.reason is not None]

    def __str__(self) -> str:
        """A line for each p, and for each reason to leave layers."""
        alike: dict[tuple[str, str], list[str]] = {}
        for record in self.converted:
            fate = ('converted', f'HetConv, p={record.layer.p}')
            alike.setdefault(fate, []).append(record.name)
        for record in self.left:
            alike.setdefault(('left', str(record.reason)), []).append(record.name)
        body = [(fate, len(names), _shortened(names), why) for (fate, why), names in alike.items()]
        head = ('', 'number', 'convolutions', 'as, or because')
        return f'{format_table(head, body)}\n\n{self._total()}'

    def table(self) -> str:
        """Layer by layer: MACs per output pixel, parameters, why left.

        How many output pixels a layer has depends on the image:
        tools/summary.py and tools/get_flops.py count for a whole one.
        """
        head = (
            'layer',
            'MACs per pixel before',
            'after',
            'parameters before',
            'after',
            'left because',
        )
        body = [
            (
                record.name,
                with_unit(record.dense_macs),
                with_unit(record.macs),
                with_unit(record.dense_parameters),
                with_unit(record.parameters),
                record.reason or '',
            )
            for record in self.records
        ]
        return f'{format_table(head, body)}\n\n{self._total()}'

    def _total(self) -> str:
        before = sum(r.dense_parameters for r in self.records)
        after = sum(r.parameters for r in self.records)
        return (
            f'{len(self.converted)} of {len(self.records)} convolutions '
            f'converted, {share_saved(before, after)} of their parameters '
            'saved.'
        )


def _shortened(names: list[str]) -> str:
    """The first and the last of many names."""
    if len(names) <= 2:
        return ', '.join(names)
    return f'{names[0]} ... {names[-1]}'


def matches(name: str, *patterns: str) -> bool:
    """Whether one is a pattern of a layer's name or of a module around it."""
    words = name.split('.')
    prefixes = ['.'.join(words[: i + 1]) for i in range(len(words))]
    return any(fnmatchcase(x, y) for x in prefixes for y in patterns)


def _as_patterns(patterns: str | Sequence[str] | None) -> list[str]:
    if patterns is None:
        return []
    return [patterns] if isinstance(patterns, str) else list(patterns)


def convert_model(
    model: nn.Module,
    *,
    p: int | None = 4,
    include: str | Sequence[str] | None = None,
    exclude: str | Sequence[str] | None = None,
    layers: Mapping[str, int] | None = None,
    arrangement: str = 'blocked',
) -> ConversionReport:
    """Replace nn.Conv2d modules by HetConv2d, in place, weights projected.

    What is kept and what is left: see :func:`replace_convs`. Left are also the
    convolutions of which other code reads the parameters or asks for the type, as far
    as a run on a small random image shows it. Predictors are convolutions as any
    other; exclude them if they are to stay dense.

    Patterns are shell globs on the names in ``model.named_modules()``, where
    ``*`` goes over dots. One that matches a module matches every layer in
    it: 'backbone', 'backbone.layer[34]', 'neck.fpn_convs.*.conv'.

    Args:
        model (nn.Module): the model, not itself a convolution.
        p (int, optional): of every layer that `layers` does not
            name. None leaves those dense. Defaults to 4.
        include (str | Sequence[str], optional): patterns of what may be
            converted. Defaults to everything.
        exclude (str | Sequence[str], optional): patterns of what stays
            dense; goes before `include` and `layers`.
        layers (Mapping[str, int], optional): p by pattern, the first
            that matches counts; goes before `include`. 1 stays dense.
        arrangement (str): 'blocked' or 'shifted'.

    Returns:
        ConversionReport: what was converted, what was left and why.

    Raises:
        ValueError: a p or arrangement that means nothing; a pattern that
            matches no convolution; nothing was converted, though the model's
            code would allow it; the model is itself a convolution. The model
            is unchanged then.

    Example:
        >>> report = convert_model(
        ...     model, p=4, exclude='rpn_head', layers={'backbone.layer4': 8}
        ... )
        >>> print(report)
    """
    layers = dict(layers or {})
    included, excluded = _as_patterns(include), _as_patterns(exclude)
    for own in (*layers.values(), 1 if p is None else p):
        check_p(own, arrangement)
    convs = find_convs(model)
    names = list(convs)
    for pattern in (*included, *excluded, *layers):
        if not any(matches(name, pattern) for name in names):
            raise ValueError(
                f'{pattern!r} matches none of the {len(names)} convolutions '
                f'of this {type(model).__name__}'
            )

    def choose(name: str, conv: nn.Conv2d) -> dict[str, Any] | str:
        if matches(name, *excluded):
            return 'it is excluded'
        named = [q for pattern, q in layers.items() if matches(name, pattern)]
        if not named and included and not matches(name, *included):
            return 'it is not included'
        own = named[0] if named else p
        if own is None:
            return 'no p was given for it'
        if own == 1:
            return 'its p is 1'
        if conv in way.touched:
            return READ
        return dict(type='HetConv', p=own, arrangement=arrangement)

    way = Way(model)
    report = ConversionReport(keep_way(way, convs, replace_convs(model, choose)))
    reasons = sorted({r.reason for r in report.records if r.reason})
    if not report.converted and not {READ, ASKED}.intersection(reasons):
        raise ValueError(
            f'nothing was converted with p={p} among {len(names)} '
            f'convolutions: ' + '; '.join(reasons)
        )
    return report
