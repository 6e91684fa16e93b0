"""mmengine's hooks that write files, proof against crashes and many processes.

``tools/train.py`` and ``tools/test.py`` put them in place of mmengine's own;
any other program gets them by their names in ``default_hooks``.
"""

import os
from pathlib import Path

from mmengine.dist import is_main_process, master_only
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook, LoggerHook
from mmengine.registry import HOOKS

from ....utils.files import unfinished, write_whole


@register_backend('whole_files')
class WholeFiles(LocalBackend):
    """The local disk, where a file is there in full or not at all."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        Path(filepath).parent.mkdir(parents=True, exist_ok=True)
        write_whole(filepath, obj)


class RemovesLater(LocalBackend):
    """The local disk, from which files vanish at last, not at once."""

    def __init__(self):
        self._noted: dict[str, int] = {}

    def remove(self, filepath: str | Path) -> None:
        self._noted[str(filepath)] = os.stat(filepath).st_ino

    def remove_noted(self) -> None:
        """Remove what remove() was called with and nobody has replaced."""
        for path, inode in self._noted.items():
            if os.stat(path).st_ino == inode:
                super().remove(path)


@HOOKS.register_module()
class WholeCheckpointHook(CheckpointHook):
    """CheckpointHook that a crash or a full disk costs no checkpoint.

    mmengine writes checkpoints in place, so that a half-written one may bear
    the name of a good one, and removes an outdated one before it writes its
    successor. Here the successor is complete and on the disk first. Remote
    storage is left to its backend.
    """

    def before_train(self, runner) -> None:
        super().before_train(runner)
        if not self._is_local():
            return
        self.backend_args = dict(backend='whole_files')
        if is_main_process():
            # Left by a process that was killed while it wrote.
            for part in Path(self.out_dir).glob(unfinished(Path('*.pth')).name):
                part.unlink()

    def _is_local(self) -> bool:
        backend = self.file_backend
        return isinstance(backend, LocalBackend) and not self.file_client_args

    # mmengine has no public place between removing the old checkpoint and
    # writing the new one: this is the method that does both.
    def _save_checkpoint_with_step(self, runner, step: int, meta: dict):
        name = self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        outdated = self._count(runner, step)
        runner.save_checkpoint(
            self.out_dir,
            name,
            self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        if not is_main_process():
            return
        note = Path(runner.work_dir) / 'last_checkpoint'
        write_whole(note, str(self.last_ckpt).encode())
        if outdated and self.file_backend.isfile(outdated):
            self.file_backend.remove(outdated)

    def _count(self, runner, step: int) -> str | None:
        """Count a checkpoint among those to keep; the one that leaves."""
        if self.max_keep_ckpts <= 0 or step in self.keep_ckpt_ids:
            return None
        first = None
        if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
            first = self.file_backend.join_path(
                self.out_dir, self.filename_tmpl.format(self.keep_ckpt_ids[0])
            )
        self.keep_ckpt_ids.append(step)  # holds max_keep_ckpts, the newest
        runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        return first

    def _save_best_checkpoint(self, runner, metrics: dict) -> None:
        if not self._is_local():
            super()._save_best_checkpoint(runner, metrics)
            return
        backend, self.file_backend = self.file_backend, RemovesLater()
        super()._save_best_checkpoint(runner, metrics)
        self.file_backend.remove_noted()
        self.file_backend = backend


@HOOKS.register_module()
class FirstLoggerHook(LoggerHook):
    """LoggerHook of which only the first process writes the metrics.

    mmengine's writes a test's metrics from every process into one file, whose
    content then is that of both, one inside the other.
    """

    @master_only
    def after_test_epoch(self, runner, metrics=None) -> None:
        super().after_test_epoch(runner, metrics)
