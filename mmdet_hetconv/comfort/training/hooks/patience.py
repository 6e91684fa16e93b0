"""Early stopping that counts on after --resume."""

from mmengine.hooks import EarlyStoppingHook
from mmengine.logging import print_log
from mmengine.registry import HOOKS

MIN_DELTA = 0.001


@HOOKS.register_module()
class PatienceHook(EarlyStoppingHook):
    """Ends the training after so many validations without a better metric.

    mmengine's EarlyStoppingHook wants a gain of 0.1, which of mAP hardly a detector
    makes between two epochs, and forgets its count when a training is resumed.

    Args:
        patience (int): validations.
        monitor (str): the metric; by default the first one of the evaluator.
        min_delta (float): the least gain that counts.
    """

    def __init__(self, patience: int, monitor: str = 'mAP', min_delta: float = MIN_DELTA):
        super().__init__(monitor, rule='greater', min_delta=min_delta, patience=patience)

    def before_train(self, runner) -> None:
        kept = runner.message_hub.runtime_info.get('patience')
        if kept:
            self.best_score, self.wait_count = kept['best'], kept['waited']
            print_log(f'--patience: {self._told()}', 'current')

    def after_val_epoch(self, runner, metrics=None) -> None:
        metrics = metrics or {}
        if self.monitor not in metrics:
            self.monitor = next(iter(metrics), self.monitor)
        super().after_val_epoch(runner, metrics)
        kept = dict(best=float(self.best_score), waited=int(self.wait_count))
        runner.message_hub.update_info('patience', kept)
        if self.wait_count:
            print_log(f'--patience: {self._told()}', 'current')

    def _told(self) -> str:
        return (
            f'{self.monitor} gained less than {self.min_delta:g} over {self.best_score:.4f} in '
            f'{self.wait_count} of {self.patience} validations'
        )
