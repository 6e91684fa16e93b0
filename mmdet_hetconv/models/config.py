"""Rewrite the ``model`` of a config: HetConv everywhere, or another p."""

import copy
import inspect
from collections.abc import Callable, Iterator

from mmdet.registry import MODELS

from ..utils.errors import UserError

# Registered types and the arguments of theirs that choose convolutions.
HET_COMPONENTS = dict(
    HetMobileNet=('conv_cfg', 'p'),
    HetRPNHead=('conv_cfg',),
    HetResNet=('conv_cfg', 'p'),
    HetSSDHead=('conv_cfg',),
    HetSSDVGG=('conv_cfg', 'p'),
    HetVGG=('conv_cfg', 'p'),
)
# What stands in for stock components that take no conv_cfg, or ignore it.
STAND_INS = dict(RPNHead='HetRPNHead', SSDHead='HetSSDHead', SSDVGG='HetSSDVGG')


def walk(cfg, path: str = 'model') -> Iterator[tuple[str, dict]]:
    """All dicts of a config with their dotted keys, outer ones first."""
    if isinstance(cfg, dict):
        yield path, cfg
        for key, value in cfg.items():
            yield from walk(value, f'{path}.{key}')
    elif isinstance(cfg, list | tuple):
        for number, value in enumerate(cfg):
            yield from walk(value, f'{path}[{number}]')


def _count(model_cfg: dict, change: Callable[[dict], bool]) -> int:
    """Call `change` on every dict; returns how often it returned true."""
    return sum(change(cfg) for _, cfg in list(walk(model_cfg)))


def set_p(model_cfg: dict, p: int) -> dict:
    """A copy of the model config with another p in every HetConv.

    Raises:
        UserError: the model's config names no HetConv; p means nothing.
    """
    if p < 1:
        raise UserError(f'p must be an integer >= 1, got p={p}')
    model_cfg = copy.deepcopy(model_cfg)
    if not _count(model_cfg, lambda cfg: _set_p(cfg, p)):
        raise UserError(f'p={p}: there is no HetConv in the config')
    return model_cfg


def _set_p(cfg: dict, p: int) -> bool:
    kind = cfg.get('type')
    if kind == 'HetConv':
        cfg['p'] = p
        return True
    if kind == 'ConvertedModel':
        cfg['layers'] = dict.fromkeys(cfg['layers'], p)
        return True
    if kind not in HET_COMPONENTS:
        return False
    conv_cfg = cfg.get('conv_cfg', dict(type='HetConv'))
    if conv_cfg is None or conv_cfg['type'] != 'HetConv':
        return False
    if 'p' in HET_COMPONENTS[kind]:
        cfg['p'] = p
    else:
        cfg['conv_cfg'] = dict(conv_cfg, p=p)
    return True


def takes_conv_cfg(component: type) -> bool:
    """Whether a class takes conv_cfg, itself or through **kwargs.

    One with another default, Conv1d in MaskPointHead, needs that kind.
    """
    for cls in component.__mro__:
        if '__init__' not in vars(cls):
            continue
        parameters = inspect.signature(cls.__init__).parameters
        if 'conv_cfg' in parameters:
            default = parameters['conv_cfg'].default
            return default is None or default['type'] == 'HetConv'
        if all(p.kind is not p.VAR_KEYWORD for p in parameters.values()):
            return False
    return False


def use_conv_cfg(model_cfg: dict, conv_cfg: dict) -> dict:
    """A copy of the model config with a conv_cfg wherever a component takes one.

    RPNHead, SSDHead and SSDVGG, which do not, become their stand-ins. A
    component that has a conv_cfg already keeps it, and one with deformable
    convolutions stays as it is: mmdet's blocks take one or the other.

    Raises:
        ValueError: no component takes one.
    """
    model_cfg = copy.deepcopy(model_cfg)

    def visit(cfg):
        kind = cfg.get('type')
        kind = STAND_INS.get(kind, kind)
        component = MODELS.get(kind) if isinstance(kind, str) else kind
        if not inspect.isclass(component) or not takes_conv_cfg(component):
            return False
        if any(cfg.get(key) is not None for key in ('conv_cfg', 'dcn')):
            return False
        cfg.update(type=kind, conv_cfg=dict(conv_cfg))
        return True

    if not _count(model_cfg, visit):
        raise ValueError(f'no component of the {model_cfg.get("type")} takes a conv_cfg')
    return model_cfg
