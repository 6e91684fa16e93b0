"""The metrics of tools/test.py, for a model that is at hand."""

import tempfile
import time

from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from torch import nn

from ..datasets.metrics import use_own_metrics


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
        metrics = {key: float(v) for key, v in runner.test().items()}
    # The runner's logger, which only warns, would stay the current one.
    MMLogger.get_instance(f'evaluated_{time.monotonic_ns()}')
    return metrics
