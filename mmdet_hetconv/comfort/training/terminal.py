"""What a training or an evaluation shows: a bar, or a short line now and then.

The log file has all that mmengine logs, the whole config among it.
"""

import logging
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.runner import EpochBasedTrainLoop, Runner
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

# Between two lines, in seconds, after those of the first steps.
PAUSE_S = 30
_FIRST = (1, 3, 10)
# What goes to the file alone: long, or in a short form here.
_FILE_ONLY = re.compile(
    r'Config:\n|Hooks will be executed|\s*-+\nSystem environment|paramwise_options|Exp name:|'
    r'(Epoch|Iter)\((train\)|(val|test)\).*\beta: )|'
    r'Distributed training is not used|"(FileClient|HardDiskBackend)" '
)


def _shown(record: logging.LogRecord) -> bool:
    return not _FILE_ONLY.match(record.getMessage())


def _terminal(logger: MMLogger) -> list[logging.StreamHandler]:
    return [h for h in logger.handlers if not isinstance(h, logging.FileHandler)]


class TerminalRunner(Runner):
    """A runner that logs to its file what is too long for a terminal."""

    def build_logger(self, *args, **kwargs) -> MMLogger:
        logger = super().build_logger(*args, **kwargs)
        for handler in _terminal(logger):
            handler.addFilter(_shown)
        return logger


@contextmanager
def shown_progress(runner: Runner) -> Iterator[None]:
    """Show how far a training or an evaluation is, while it runs."""
    bar = None
    if is_main_process() and sys.stdout.isatty():
        bar = Progress(
            TextColumn('{task.description}'),
            BarColumn(bar_width=12),
            TextColumn('{task.fields[values]}'),
            console=Console(file=sys.stdout),
            transient=True,
        )
    runner.register_hook(ProgressHook(bar), priority='LOW')
    if bar is None:
        yield
        return
    handlers = [(handler, handler.stream) for handler in _terminal(runner.logger)]
    try:
        with bar:
            for handler, _ in handlers:
                handler.setStream(sys.stdout)  # rich's, which writes above the bar
            yield
    finally:
        for handler, stream in handlers:
            handler.setStream(stream)


class ProgressHook(Hook):
    """Shows loss, learning rate and the time that is left."""

    def __init__(self, bar: Progress | None = None):
        self.bar = bar
        self.steps = 0
        self.last_line = time.monotonic()

    def before_train(self, runner) -> None:
        self.steps = 0  # an evaluation may have come before

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        hub = runner.message_hub
        if isinstance(runner.train_loop, EpochBasedTrainLoop):
            step, total = batch_idx + 1, len(runner.train_dataloader)
            name = f'epoch {runner.epoch + 1}/{runner.max_epochs}'
        else:
            name, step, total = 'training', runner.iter + 1, runner.max_iters
        values = f'lr {runner.optim_wrapper.param_groups[0]["lr"]:.2e}'
        if 'train/loss' in hub.log_scalars:
            values = f'loss {hub.get_scalar("train/loss").mean(10):.4f}  {values}'
        if eta := hub.runtime_info.get('eta'):
            values += f'  {timedelta(seconds=int(eta))} left'
        self._show(name, step, total, values)

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self._show('validation', batch_idx + 1, len(runner.val_dataloader))

    def after_test_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self._show('test', batch_idx + 1, len(runner.test_dataloader))

    def _show(self, name: str, step: int, total: int, values: str = '') -> None:
        if not is_main_process():
            return
        self.steps += 1
        values = f'step {step}/{total}  {values}'.rstrip()
        if self.bar:
            if not self.bar.tasks:
                self.bar.add_task('', values='')
            task = self.bar.tasks[0].id
            self.bar.update(task, description=name, values=values, completed=step, total=total)
            return
        now = time.monotonic()
        if self.steps in _FIRST or step == total or now - self.last_line > PAUSE_S:
            self.last_line = now
            print(f'{name}  {values}', flush=True)
