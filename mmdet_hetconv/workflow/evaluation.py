"""The metrics of tools/test.py for a model in memory."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from torch import nn

from ..utils.announce import announce
from ..utils.progress import progress_bar
from ..utils.table import format_table
from .config.config_parts import join_root, leaf_datasets
from .metrics import use_own_metrics


def evaluate(cfg: Config, model: nn.Module) -> dict[str, float]:
    """A model's metrics on the test data of a config."""
    use_own_metrics(cfg)
    with tempfile.TemporaryDirectory() as folder:
        runner = Runner(
            model,
            folder,
            test_dataloader=cfg.test_dataloader,
            test_evaluator=cfg.test_evaluator,
            test_cfg=cfg.get('test_cfg') or dict(type='TestLoop'),
            default_scope='mmdet',
            experiment_name=f'evaluate_{time.monotonic_ns()}',
            log_level='WARNING',
        )
        with progress_bar('Evaluating', len(runner.test_loop.dataloader)) as step:
            runner.register_hook(_Steps(step))
            metrics = {key: float(v) for key, v in runner.test().items()}
    # The runner's logger, which only warns, would stay the current one.
    MMLogger.get_instance(f'evaluated_{time.monotonic_ns()}')
    return metrics


class _Steps(Hook):
    """Calls a function after each batch."""

    def __init__(self, step: Callable[[], None]):
        self._step = step

    def after_test_iter(self, *_: Any, **__: Any) -> None:
        self._step()


def metrics_table(metrics: dict[str, dict[str, float]]) -> str:
    """Metrics by stage: of weights, or of a form of the model."""
    names = list(next(iter(metrics.values())))
    rows = [[stage, *(f'{v[name]:.4f}' for name in names)] for stage, v in metrics.items()]
    return format_table(('weights', *names), rows)


def has_annotations(cfg: Config) -> bool:
    """Whether the test data of a config is there; says so if it is not."""
    if not (cfg.get('test_dataloader') and cfg.get('test_evaluator')):
        return False
    for key, leaf in leaf_datasets(cfg.test_dataloader.dataset, 'test_dataloader.dataset'):
        path = join_root(leaf, leaf.get('ann_file', ''))
        if not Path(path).is_file():
            announce(f'{key}: {path} does not exist, nothing is evaluated')
            return False
    return True
