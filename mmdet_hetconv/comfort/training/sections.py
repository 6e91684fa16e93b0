"""The sections of a config: what kind of value each is, and what it needs.

mmengine reads most of them late, some after the first epoch, and says of a
text in the place of a dict that it has no attribute.
"""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import build_functions

from ...utils.errors import UserError
from ...workflow.config.config_parts import type_name
from ...workflow.config.preflight import explained_build

_DICTS = (
    *('train_cfg', 'val_cfg', 'test_cfg', 'optim_wrapper', 'default_hooks'),
    *('train_dataloader', 'val_dataloader', 'test_dataloader', 'env_cfg'),
    *('visualizer', 'log_processor', 'auto_scale_lr', 'randomness'),
)
_LISTS = ('custom_hooks',)
_DICTS_OR_LISTS = ('val_evaluator', 'test_evaluator', 'param_scheduler')

# What mmengine's visualisation backends import when they are first used.
_PACKAGES = dict(
    TensorboardVisBackend='tensorboard',
    WandbVisBackend='wandb',
    MLflowVisBackend='mlflow',
    ClearMLVisBackend='clearml',
    NeptuneVisBackend='neptune',
    DVCLiveVisBackend='dvclive',
    AimVisBackend='aim',
)


def check_kinds(cfg: Config) -> None:
    """Raise UserError for a text or a number where a dict or list belongs."""
    for key in (*_DICTS, *_DICTS_OR_LISTS, *_LISTS):
        value = cfg.get(key)
        is_list = isinstance(value, list | tuple)
        if _is_plain(value) or (is_list and key in _DICTS):
            wanted = 'list of dicts' if key in _LISTS else 'dict'
            raise UserError(f'{key}={value!r:.80} is not a {wanted}')
        if is_list:
            _check_parts(enumerate(value), f'{key}[{{}}]')
    hooks = cfg.get('default_hooks') or {}
    _check_parts(hooks.items(), 'default_hooks.{}')
    backends = (cfg.get('visualizer') or {}).get('vis_backends')
    if _is_plain(backends):
        raise UserError(f'visualizer.vis_backends={backends!r:.80} is not a list of dicts')
    _check_parts(enumerate(backends or ()), 'visualizer.vis_backends[{}]')


def _check_parts(parts, key: str) -> None:
    for name, part in parts:
        if _is_plain(part):
            raise UserError(f'{key.format(name)}={part!r:.80} is not a dict')


def _is_plain(value) -> bool:
    return isinstance(value, str | int | float)


def check_needs(cfg: Config, training: bool) -> None:
    """Raise UserError for what this machine lacks: packages, a GPU."""
    backends = (cfg.get('visualizer') or {}).get('vis_backends') or ()
    for number, backend in enumerate(backends):
        kind = type_name(backend)
        package = _PACKAGES.get(kind)
        if package and find_spec(package) is None:
            raise UserError(
                f'visualizer.vis_backends[{number}].type={kind} needs the '
                f'package {package}, which is not installed'
            )
    if not training or get_device() != 'cpu':
        return
    kind = type_name(cfg.get('optim_wrapper') or {})
    if kind == 'AmpOptimWrapper':
        raise UserError(f'optim_wrapper.type={kind} needs a GPU, there is none on this machine')


@contextmanager
def explained_late_build(cfg: Config) -> Iterator[None]:
    """:func:`explained_build` for what a runner builds when it runs.

    Evaluators, loops, optimizers and schedulers are. An error from anywhere
    but a builder is a fault and passes.
    """
    try:
        yield
    except (ValueError, KeyError, AssertionError, TypeError) as error:
        if not _in_builder(error):
            raise
        with explained_build(cfg):
            raise


def _in_builder(error: Exception) -> bool:
    frames = traceback.extract_tb(error.__traceback__)
    return any(frame.filename == build_functions.__file__ for frame in frames)
