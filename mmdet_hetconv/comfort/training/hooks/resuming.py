"""``--resume`` under another rate, schedule or length than the checkpoint's.

mmengine loads the old rate and the old schedule, its end included, and says nothing.
"""

import logging
from collections.abc import Iterator
from typing import Any

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper, ReduceOnPlateauParamScheduler
from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop, Runner

from ....utils.announce import announce
from ....utils.errors import UserError
from ....utils.suggestion import some
from ....workflow.config.config_parts import class_names, leaf_datasets
from ....workflow.config.configs import recorded_config

# What decides on the learning rate of a step.
_RATE = (
    *('optim_wrapper', 'param_scheduler', 'train_cfg.max_'),
    *('train_dataloader.batch_size', 'auto_scale_lr.enable'),
)


def check_same_classes(content: dict, cfg: Config, path: str) -> None:
    """Look whether a checkpoint's classes are those of the training data.

    Raises:
        UserError: they have another order, so that its weights stand for other classes.
    """
    trained = tuple((content['meta'].get('dataset_meta') or {}).get('classes') or ())
    key, leaf = next(leaf_datasets(cfg.train_dataloader.dataset, 'train_dataloader.dataset'))
    classes = class_names(leaf, key)
    if not trained or not classes or trained == classes:
        return
    text = f'--resume: checkpoint {path} was trained on the classes {some(trained)}, '
    if sorted(trained) == sorted(classes):
        raise UserError(f'{text}{key} has them in the order {some(classes)}')
    announce(f'{text}{key} has {some(classes)}: its weights go on as those', logging.WARNING)


@HOOKS.register_module()
class ResumeHook(Hook):
    """Goes on under the config's rate and schedule, where they are not the checkpoint's.

    The rate is the one that the config's schedule has at the step at which the
    training goes on. The optimizer's momenta are the checkpoint's.
    """

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        meta = checkpoint['meta']
        epochs = runner.max_epochs
        if isinstance(runner.train_loop, EpochBasedTrainLoop) and meta['epoch'] >= epochs:
            announce(f'--resume: all epochs are done, train_cfg.max_epochs is {epochs}')
        changed = list(_changes(recorded_config(checkpoint), runner.cfg))
        if not changed or not isinstance(runner.optim_wrapper, OptimWrapper):
            return
        _step_schedulers(runner, meta, any('batch_size' in key for key, *_ in changed))
        checkpoint.pop('param_schedulers', None)
        afresh = any(key == 'optim_wrapper.optimizer.type' for key, *_ in changed)
        if afresh:
            checkpoint.pop('optimizer', None)
        elif 'optimizer' in checkpoint:
            _take_settings(checkpoint['optimizer'], runner.optim_wrapper.state_dict())
        told = ', '.join(f'{key} is {new!r} (was {old!r})' for key, old, new in changed)
        rate = runner.optim_wrapper.param_groups[0]['lr']
        announce(
            f'--resume: the config is taken, not the checkpoint, where they differ: {told}; '
            f'the learning rate goes on at {rate:.4g}'
            f'{", with a new optimizer" if afresh else ""}',
            logging.WARNING,
        )


def _changes(old: dict, cfg: Config) -> Iterator[tuple[str, Any, Any]]:
    """Keys, with the old and the new value, in which two configs have other rates."""
    for name in {key.partition('.')[0]: None for key in _RATE}:
        if name not in old:
            continue
        for key, before, now in _differences(name, old[name], cfg.get(name)):
            if key.startswith(_RATE):
                yield key, before, now


def _differences(key: str, old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in dict.fromkeys((*old, *new)):
            yield from _differences(f'{key}.{name}', old.get(name), new.get(name))
    elif isinstance(old, list | tuple) and isinstance(new, list | tuple) and len(old) == len(new):
        for number, (before, now) in enumerate(zip(old, new)):
            yield from _differences(f'{key}[{number}]', before, now)
    elif isinstance(new, type):
        # The text of a config names classes by their path.
        yield from _differences(key, str(old).rpartition('.')[2], new.__name__)
    elif old != new:
        yield key, old, new


def _step_schedulers(runner: Runner, meta: dict, other_batches: bool) -> None:
    """Bring new schedulers, and by them the optimizer's rate, to a checkpoint's step."""
    length = len(runner.train_dataloader)
    steps = meta['iter']
    if other_batches and isinstance(runner.train_loop, EpochBasedTrainLoop):
        steps = meta['epoch'] * length
    schedulers = [
        scheduler
        for scheduler in runner.param_schedulers or ()
        if not isinstance(scheduler, ReduceOnPlateauParamScheduler)
    ]
    for step in range(1, steps + 1):
        for scheduler in schedulers:
            if not scheduler.by_epoch or step % length == 0:
                scheduler.step()


def _take_settings(state: dict, new: dict) -> None:
    """Keep an optimizer's momenta, and take the rate and all else of a new one."""
    groups = state['param_groups'], new['param_groups']
    sizes = [[len(group['params']) for group in part] for part in groups]
    if sizes[0] != sizes[1]:
        raise UserError(
            f"--resume: the checkpoint's optimizer has {sum(sizes[0])} weights in "
            f'{len(sizes[0])} groups, that of the config {sum(sizes[1])} in {len(sizes[1])}: '
            'optim_wrapper.paramwise_cfg or what is frozen was changed; '
            'load_from starts from the weights alone'
        )
    state['param_groups'] = new['param_groups']
    state.pop('base_param_settings', None)
    if 'base_param_settings' in new:
        state['base_param_settings'] = new['base_param_settings']
