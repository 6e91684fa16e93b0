"""One conv_cfg per stage of a backbone, and the check that it replaced a layer.

A backbone takes a ``conv_cfg`` and a ``p``: a number, or one per stage, that
goes before the conv_cfg's own.
"""

import math
from collections.abc import Sequence

from torch import nn

from mmdet_hetconv.layers.replace import find_convs
from mmdet_hetconv.layers.shape import check_p

# The default of every component here; None instead is the stock class.
HET_CONV = dict(type='HetConv', p=4)


def stage_conv_cfgs(
    conv_cfg: dict | None, p: int | Sequence[int] | None, num_stages: int
) -> list[dict | None]:
    """The conv_cfg of every stage.

    Raises:
        ValueError: `p` is a sequence of another length than the stages,
            holds something else than integers >= 1, or is given without a
            conv_cfg to go into.
    """
    if p is None:
        return [conv_cfg] * num_stages
    if conv_cfg is None:
        raise ValueError(f'p={p!r} needs a conv_cfg, got conv_cfg=None')
    if not isinstance(p, (list, tuple)):
        p = [p] * num_stages
    for one in p:
        check_p(one, 'blocked')
    if len(p) != num_stages:
        raise ValueError(f'p={tuple(p)} has {len(p)} entries for {num_stages} stages')
    return [dict(conv_cfg, p=one) for one in p]


def largest_p(conv_cfg: dict, in_channels: int, out_channels: int) -> dict:
    """The conv_cfg with the largest p that fits these channels.

    It is the greatest common divisor of p and both channels. For components
    whose channels are not the user's choice; where they are, a p that does
    not fit is better told than changed.
    """
    if 'p' not in conv_cfg:
        return conv_cfg
    check_p(conv_cfg['p'], 'blocked')
    return dict(conv_cfg, p=math.gcd(conv_cfg['p'], in_channels, out_channels))


def check_stages(backbone: str, num_stages: int, most: int, **by_stage: Sequence) -> None:
    """Raise ValueError for a number of stages that the backbone lacks.

    Args:
        backbone: its name, for the message.
        num_stages: the number asked for.
        most: the number it has.
        **by_stage: arguments that have one entry per stage.
    """
    if not 1 <= num_stages <= most:
        raise ValueError(f'{backbone}: num_stages={num_stages} is not in 1 ... {most}')
    for name, values in by_stage.items():
        if len(values) != num_stages:
            raise ValueError(
                f'{backbone}: {name}={tuple(values)} has {len(values)} '
                f'entries for {num_stages} stages'
            )


def check_depth(backbone: str, depth: int, known: Sequence[int]) -> None:
    """Raise ValueError for a depth that the backbone does not come in."""
    if depth not in known:
        raise ValueError(f'{backbone}: depth={depth} is not one of {tuple(known)}')


def check_replaced(stages: Sequence[nn.Module], conv_cfgs: Sequence[dict | None]) -> None:
    """Raise ValueError for a conv_cfg that fits no layer of its stages."""
    for cfg in conv_cfgs:
        if cfg is None or cfg.get('p') == 1:
            continue
        convs = [
            conv
            for stage, own in zip(stages, conv_cfgs)
            if own == cfg
            for conv in find_convs(stage).values()
        ]
        if all(isinstance(conv, nn.Conv2d) for conv in convs):
            shapes = {(c.in_channels, c.out_channels) for c in convs if c.kernel_size != (1, 1)}
            raise ValueError(
                f'nothing was converted: {cfg} fits no convolution, which '
                f'have {sorted(shapes)} input and output channels'
            )
