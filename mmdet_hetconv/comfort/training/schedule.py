"""``--epochs`` and ``--batch-size``: a config's schedule on another length."""

from collections.abc import Callable

from mmengine.config import Config
from mmengine.runner import Runner

from ...utils.announce import announce
from ...utils.errors import UserError
from ...workflow.config.config_parts import type_name

# Keys of schedulers and hooks that are epochs.
_EPOCHS = ('begin', 'end', 'T_max', 'step_size', 'total_iters', 'num_last_epochs', 'switch_epoch')
# The share of a training that a warm-up takes at most.
_WARM_UP = 0.1


def set_epochs(cfg: Config, epochs: int) -> None:
    """Train so many epochs; everything that a config counts in epochs keeps its share.

    Raises:
        UserError: the config counts iterations.
    """
    old = cfg.train_cfg.get('max_epochs')
    if not old:
        raise UserError(
            f'--epochs: train_cfg of {cfg.filename} counts iterations, '
            f'max_iters={cfg.train_cfg.get("max_iters")}'
        )

    def scaled(number: int) -> int:
        return max(1, round(number * epochs / old)) if number else number

    cfg.train_cfg.max_epochs = epochs
    cfg.train_cfg.val_interval = min(cfg.train_cfg.get('val_interval', 1), epochs)
    if cfg.train_cfg.get('dynamic_intervals'):
        cfg.train_cfg.dynamic_intervals = [
            (scaled(start), interval) for start, interval in cfg.train_cfg.dynamic_intervals
        ]
    saving = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    if saving.get('by_epoch', True) and saving.get('interval', 1) > epochs:
        saving.interval = epochs
    schedulers = cfg.get('param_scheduler') or []
    schedulers = [schedulers] if isinstance(schedulers, dict) else schedulers
    for part in schedulers:
        if part.get('by_epoch', True):
            _scale_epochs(part, scaled, epochs)
    for hook in cfg.get('custom_hooks') or []:
        _scale_epochs(hook, scaled, epochs)


def _scale_epochs(part: dict, scaled: Callable[[int], int], epochs: int) -> None:
    for key in _EPOCHS:
        if isinstance(part.get(key), int):
            part[key] = scaled(part[key])
    if part.get('milestones'):
        steps = sorted({scaled(step) for step in part['milestones']})
        part['milestones'] = [step for step in steps if step < epochs]


def set_batch_size(cfg: Config, size: int, scales_rate: bool) -> None:
    """Train on so many images at once, in each process."""
    loader = cfg.train_dataloader
    loader.batch_size = size
    if 'batch_size' in (loader.get('batch_sampler') or {}):
        loader.batch_sampler.batch_size = size
    made_for = (cfg.get('auto_scale_lr') or {}).get('base_batch_size')
    if made_for and made_for != size and not scales_rate:
        announce(
            f'--batch-size {size}: the learning rate is made for {made_for} images in all '
            'processes together; --auto-scale-lr scales it'
        )


def shorten_warm_up(runner: Runner) -> None:
    """Let a warm-up that is counted in iterations take no more than a tenth of the training."""
    steps = runner.train_loop.max_iters
    most = max(2, round(_WARM_UP * steps))  # LinearLR over one step would stay at its start
    schedulers = runner.param_schedulers or []
    for part in [schedulers] if isinstance(schedulers, dict) else schedulers:
        end = part.get('end') if type_name(part).startswith(('Linear', 'Constant')) else None
        if end and not part.get('by_epoch', True) and end > most:
            part['end'] = most
            announce(f'the warm-up takes {most} steps in place of {end}, of {steps} in all')
