"""From a command line to mmengine's Config."""

import ast
import logging
from pathlib import Path
from typing import Any

from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.device import get_device

from ...utils.announce import announce
from ...utils.arguments import literal
from ...utils.errors import UserError
from ...utils.suggestion import did_you_mean_file
from ...zoo import CONFIGS
from ..checkpoints.safe_globals import load_weights_only
from .config_parts import class_names, leaf_datasets, type_name

# mmengine's hooks that write files, and ours in their places.
_OWN_HOOKS = {
    'checkpoint': ('CheckpointHook', 'WholeCheckpointHook'),
    'logger': ('LoggerHook', 'FirstLoggerHook'),
}
_INTERVAL = {'checkpoint': 1, 'logger': 10}  # mmengine's


def read_config(path: str | Config, options: dict | None = None) -> Config:
    """Config.fromfile(), with one sentence for everything that goes wrong.

    mmdet's SSDHead becomes HetSSDHead without a conv_cfg. mmdet's types are registered,
    and torch.load() runs no code from here on.

    Args:
        path: a file, or a config that was read already.
        options: merged into it, as of ``--cfg-options``.

    Raises:
        UserError: no such file, or running it fails; an option that does not fit.
    """
    load_weights_only()
    register_all_modules(init_default_scope=True)
    cfg = path if isinstance(path, Config) else _read_file(path)
    merge_options(cfg, options)
    return cfg


def _read_file(path: str) -> Config:
    if not Path(path).is_file():
        close = did_you_mean_file(path, CONFIGS.glob('*.py'))
        raise UserError(f'config {path} does not exist{close}')
    try:
        cfg = Config.fromfile(path)
    except Exception as error:  # a config is a program: anything may happen
        raise UserError(f'config {path} cannot be read: {type(error).__name__}: {error}') from error
    if 'model' not in cfg:
        raise UserError(f'config {path} has no model')
    head = cfg.model.get('bbox_head')
    if isinstance(head, dict) and type_name(head) == 'SSDHead':
        # mmdet 3.3's own cannot predict; without a conv_cfg ours is the same.
        head.update(type='HetSSDHead', conv_cfg=head.get('conv_cfg'))
    return cfg


def merge_options(cfg: Config, options: dict | None) -> None:
    """Merge ``--cfg-options`` into a config.

    Raises:
        UserError: a key leads through something that is not a dict.
    """
    for key, value in (options or {}).items():
        try:
            cfg.merge_from_dict({key: value})
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f'--cfg-options {key}={value}: {error}') from error


def find_work_dir(cfg: Config, work_dir: str | None, config: str) -> str:
    """Command line, else config, else ``./work_dirs/NAME OF THE CONFIG``."""
    if work_dir is not None:
        return work_dir
    if cfg.get('work_dir') is not None:
        return cfg.work_dir
    return str(Path('work_dirs') / Path(config).stem)


def use_own_hooks(cfg: Config) -> None:
    """Write files by :mod:`.hooks`, where a config has mmengine's own.

    Raises:
        UserError: an interval is no number.
    """
    if not cfg.get('default_hooks'):
        cfg.default_hooks = {}
    for name, (stock, own) in _OWN_HOOKS.items():
        if name not in cfg.default_hooks:
            cfg.default_hooks[name] = dict(type=own, interval=_INTERVAL[name])
        hook = cfg.default_hooks[name]
        if hook is None:
            continue
        interval = hook.get('interval', 1)
        if not isinstance(interval, int):
            raise UserError(f'default_hooks.{name}.interval is {interval!r}, no whole number')
        if type_name(hook) == stock:
            hook['type'] = own
    # mmengine keeps the config with the run: whoever reads it finds them.
    imports = cfg.get('custom_imports') or {}
    names = imports.get('imports') or []
    names = [names] if isinstance(names, str) else list(names)
    if 'mmdet_hetconv' not in names:
        cfg.custom_imports = {**imports, 'imports': [*names, 'mmdet_hetconv']}


def use_training_hooks(cfg: Config, val_loss: bool, patience: int | None) -> None:
    """Draw curves, look for losses that are NaN, and what --val-loss and --patience ask for.

    Raises:
        UserError: there is no validation to look at.
    """
    hooks = list(cfg.get('custom_hooks') or [])
    for hook in hooks:
        if type_name(hook) == 'EarlyStoppingHook' and 'min_delta' not in hook:
            announce(
                'EarlyStoppingHook without min_delta takes 0.1, a gain that mAP '
                'hardly makes in one epoch: it stops at once; --patience N takes 0.001',
                logging.WARNING,
            )
    hooks += [dict(type='FiniteLossHook'), dict(type='CurvesHook')]
    if (val_loss or patience) and not cfg.get('val_dataloader'):
        flag = '--val-loss' if val_loss else '--patience'
        raise UserError(f'{flag}: config {cfg.filename} has no val_dataloader')
    if val_loss:
        hooks.append(dict(type='ValLossHook'))
    if patience:
        hooks.append(dict(type='PatienceHook', patience=patience))
        cfg.default_hooks.checkpoint.setdefault('save_best', 'auto')
    cfg.custom_hooks = hooks


def set_amp(cfg: Config) -> None:
    """Train in mixed precision.

    Raises:
        UserError: there is no accelerator.
    """
    if get_device() == 'cpu':
        raise UserError('--amp needs a GPU, there is none on this machine')
    cfg.optim_wrapper.type = 'AmpOptimWrapper'
    cfg.optim_wrapper.loss_scale = 'dynamic'


def set_auto_scale_lr(cfg: Config) -> None:
    """Scale the learning rate with the batch size.

    Raises:
        UserError: the config does not say for which batch size it is made.
    """
    if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
        raise UserError('--auto-scale-lr: the config has no auto_scale_lr.base_batch_size')
    cfg.auto_scale_lr.enable = True


def recorded_config(content: dict) -> dict[str, Any]:
    """The sections of the config that a checkpoint was trained by, as far as they are literals.

    mmengine keeps its text. It is read, not run.
    """
    found = {}
    try:
        body = ast.parse((content.get('meta') or {}).get('cfg') or '').body
    except SyntaxError:
        return found
    for node in body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            try:
                found[node.targets[0].id] = literal(node.value)
            except ValueError:
                continue
    return found


def dataset_meta(content: dict) -> dict[str, Any]:
    """What a checkpoint's meta keeps of its data set, for a checkpoint made of it."""
    meta = content.get('meta') or {}
    return {key: meta[key] for key in ('dataset_meta',) if key in meta}


def trained_meta(content: dict) -> dict:
    """What a checkpoint says of the data that it was trained on, in small letters."""
    meta = (content.get('meta') or {}).get('dataset_meta') or {}
    return {name.lower(): value for name, value in meta.items()}


def classes_of(cfg: Config, content: dict, weights: str) -> tuple[str, ...]:
    """What a checkpoint was trained on, else what the test data of a config has.

    Raises:
        UserError: neither names the classes.
    """
    key, leaf = next(leaf_datasets(cfg.test_dataloader.dataset, 'test_dataloader.dataset'))
    classes = trained_meta(content).get('classes') or class_names(leaf, key)
    if not classes:
        raise UserError(
            f'neither checkpoint {weights} nor {key} of the config names the '
            'classes: add metainfo=dict(classes=...) there'
        )
    return tuple(map(str, classes))
