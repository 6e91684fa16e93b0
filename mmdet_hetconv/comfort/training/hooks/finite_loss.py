"""Says where a loss is no finite number, and ends a training of which none is."""

import logging

import torch
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import HOOKS

from ....utils.errors import UserError

# So many steps in a row, or an epoch of fewer, are no accident.
MOST = 10


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Warns of each loss that is NaN or infinite; raises after ten in a row.

    An epoch without any finite loss is the end, too, before it is saved: weights that
    are NaN do not recover.
    """

    def before_train(self, runner) -> None:
        self.in_a_row = 0
        self.last_finite = 0

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        wrong = {
            name: float(value)
            for name, value in (outputs or {}).items()
            if 'loss' in name and not torch.as_tensor(value).isfinite().all()
        }
        step = runner.iter + 1
        if not wrong:
            self.in_a_row, self.last_finite = 0, step
            return
        self.in_a_row += 1
        if len(wrong) > 1:
            wrong.pop('loss', None)  # the sum of the others
        parts = ', '.join(f'{name} is {value}' for name, value in wrong.items())
        print_log(f'step {step}: {parts}', 'current', logging.WARNING)
        whole_epoch = self.in_a_row > batch_idx and self.end_of_epoch(
            runner.train_dataloader, batch_idx
        )
        if self.in_a_row >= MOST or whole_epoch:
            group = runner.optim_wrapper.param_groups[0]
            raise UserError(
                f'{parts} at step {step}, no loss was finite after step {self.last_finite}: the '
                f'training is over; try a lower learning rate (it was {group["lr"]:.3g} here) and '
                'optim_wrapper.clip_grad, and look at the boxes with tools/browse_data.py'
            )
