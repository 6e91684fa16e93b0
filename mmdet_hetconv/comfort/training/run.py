"""Training and evaluation of a config's detector, from data to the last log line."""

import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from mmdet.engine.hooks.utils import trigger_visualization_hook
from mmdet.evaluation import DumpDetResults
from mmdet.registry import RUNNERS
from mmdet.utils import setup_cache_size_limit_of_dynamo
from mmengine.config import Config
from mmengine.runner import Runner
from mmengine.visualization import Visualizer

from ...utils.announce import announce
from ...utils.errors import UserError
from ...utils.files import NO_SPACE, check_writable_file
from ...workflow import deployment, end_to_end, exporting
from ...workflow.calibration_images import TO_QUANTIZE, Images
from ...workflow.checkpoints import checkpoint as checkpoints
from ...workflow.config import configs, preflight
from ...workflow.config.config_parts import is_local
from ...workflow.config.downloads import explained_download
from ...workflow.metrics import use_own_metrics
from ..data.own_data import use_own_data
from ..show.confusion import ConfusionMatrix
from ..show.drawing import check_draws, draw_into_folders
from . import processes
from .augmentation import augment
from .check_config import check_config
from .hooks.resuming import check_same_classes
from .image_scale import set_image_scale, warn_of_another_scale, warn_of_other_scales
from .last_batch import leave_out_a_batch_of_one
from .schedule import set_batch_size, set_epochs, shorten_warm_up
from .sections import check_kinds, check_needs, explained_late_build
from .terminal import TerminalRunner, shown_progress


@dataclass
class Trained:
    """What a training left.

    Attributes:
        work_dir: its folder, with the log, the curves and the config as it was run.
        checkpoint: the best one if the config keeps it, else the last; None without any.
        metrics: of the last validation, by name.
    """

    work_dir: Path
    checkpoint: Path | None
    metrics: dict[str, float]


@processes.leaves_group
def train(
    config: str,
    *,
    data_root: str | None = None,
    work_dir: str | None = None,
    options: dict[str, Any] | None = None,
    epochs: int | None = None,
    img_scale: Sequence[int] | None = None,
    batch_size: int | None = None,
    resume: str | None = None,
    amp: bool = False,
    auto_scale_lr: bool = False,
    val_loss: bool = False,
    patience: int | None = None,
    skip_checks: bool = False,
    launcher: str = 'none',
) -> Trained:
    """Train the detector of a config.

    Args:
        config: file.
        data_root: an annotated data set in place of the config's.
        work_dir: for logs and checkpoints; 'work_dirs/CONFIG' by default.
        options: keys of the config to overwrite, as of ``--cfg-options``.
        epochs: over which the config's schedule is stretched.
        img_scale: one side or width and height to fit images to, in evaluation too.
        batch_size: images at once in each process.
        resume: checkpoint to go on from; 'auto' is the newest in the work dir.
        amp: mixed precision, on a GPU.
        auto_scale_lr: scale the rate with the total batch size.
        val_loss: compute the loss on the validation images, too.
        patience: stop after so many validations without gain, and keep the best.
        skip_checks: take annotations and images as they are.
        launcher: who started the processes of a distributed run.

    Raises:
        UserError: a mistake in the arguments, the config, the data or the
            checkpoint; before training starts.
    """
    cfg = _prepare(
        *(config, 'train', data_root, work_dir, options, launcher),
        epochs=epochs,
        img_scale=img_scale,
        batch_size=batch_size,
        scales_lr=auto_scale_lr,
    )
    configs.use_training_hooks(cfg, val_loss, patience)
    if amp:
        configs.set_amp(cfg)
    if auto_scale_lr:
        configs.set_auto_scale_lr(cfg)
    state = _start_from(cfg, resume)
    if state is not None:
        check_same_classes(state, cfg, cfg.load_from)
        cfg.custom_hooks.append(dict(type='ResumeHook'))
    check_config(cfg, ('train', 'val'), skip_checks)
    runner = _build_runner(cfg)
    if state is not None:
        checkpoints.load_weights(runner.model, state, cfg.load_from)
        del state  # as large as the model and its optimizer
    preflight.check_model(runner.model, cfg)
    preflight.warn_if_frozen_at_random(runner.model, cfg)
    preflight.warn_if_frozen_projected(runner.model, cfg)
    warn_of_other_scales(cfg)
    with _explained_run(cfg):
        leave_out_a_batch_of_one(runner)
        if epochs or batch_size:
            shorten_warm_up(runner)
        with shown_progress(runner):
            runner.train()
    return _say_where(runner, config)


def _say_where(runner: Runner, config: str) -> Trained:
    """The last lines of a training."""
    hub = runner.message_hub
    best, last = (hub.runtime_info.get('best_ckpt'), checkpoints.newest_checkpoint(runner.work_dir))
    found = best or last
    announce(f'log: {runner.log_dir}')
    if (curves := Path(runner.work_dir) / 'curves.png').exists():
        announce(f'curves: {curves}')
    if found is None:
        announce('no checkpoint was saved')
    else:
        announce(f'{"best" if best else "last"} checkpoint: {found}')
        # The config of the work dir has all that was set.
        written = Path(runner.work_dir) / Path(config).name
        command = shlex.join(['python', 'tools/test.py', str(written), str(found)])
        announce(f'to test it: {command}')
    metrics = {
        name.removeprefix('val/'): float(scalars.current())
        for name, scalars in hub.log_scalars.items()
        if name.startswith('val/') and 'time' not in name
    }
    return Trained(Path(runner.work_dir), found and Path(found), metrics)


@processes.leaves_group
def test(
    config: str,
    checkpoint: str,
    *,
    data_root: str | None = None,
    work_dir: str | None = None,
    options: dict[str, Any] | None = None,
    out: str | None = None,
    confusion_matrix: str | None = None,
    show: bool = False,
    show_dir: str | None = None,
    wait_time: float = 2,
    tta: bool = False,
    deploy: bool = False,
    backend: str = 'torch',
    precision: str | None = None,
    images: Images = TO_QUANTIZE,
    skip_checks: bool = False,
    launcher: str = 'none',
) -> dict[str, float]:
    """Evaluate a checkpoint.

    Args:
        config, data_root, work_dir, options, skip_checks, launcher: as for :func:`train`.
        checkpoint: trained, deployed, or a graph of ``workflow.export(end2end=True)``.
        out: file of the predictions, *.pkl.
        confusion_matrix: file of a picture of it, *.png.
        show: show the detections in a window, each for `wait_time` seconds.
        show_dir: draw the detections into WORK_DIR/TIME/SHOW_DIR.
        tta: test-time augmentation.
        deploy: evaluate the inference form.
        backend: what computes backbone, neck and dense head.
        precision: of `deploy` or another backend.
        images: that set the levels of int8.

    Returns:
        dict: the metrics by name.

    Raises:
        UserError: as :func:`train`.
    """
    cfg = _prepare(config, 'test', data_root, work_dir, options, launcher)
    # Loaded here, all of it: the runner takes what fits and logs the rest.
    cfg.load_from = None
    cfg.resume = False
    is_graph = checkpoint.endswith(end_to_end.SUFFIX)
    read = end_to_end.read_exported if is_graph else checkpoints.read_weights
    content = read(checkpoint)
    check_config(cfg, ('test',), skip_checks)
    if out:
        check_writable_file(out, '--out')
    if confusion_matrix:
        check_writable_file(confusion_matrix, '--confusion-matrix')
    if show or show_dir:
        check_draws(cfg)
        shown = SimpleNamespace(show=show, show_dir=show_dir, wait_time=wait_time)
        trigger_visualization_hook(cfg, shown)
        draw_into_folders(cfg)
    if tta:
        augment(cfg)
    preflight.check_classes(content, cfg, checkpoint)
    warn_of_another_scale(content, cfg, checkpoint)
    runner = _build_runner(cfg)
    preflight.check_model(runner.model, cfg)
    if is_graph:
        if deploy or tta or precision == 'int8':
            raise UserError(
                f'{checkpoint} is a graph as it is: --deploy, --tta and --precision int8 '
                'are for checkpoints'
            )
        end_to_end.test_exported(runner, checkpoint, backend, precision or 'fp32')
    elif backend != 'torch':
        exporting.export_runner(
            runner, content, checkpoint, backend, precision=precision or 'fp32', images=images
        )
    elif deploy:
        deployment.deploy_runner(runner, content, checkpoint, precision=precision, images=images)
    else:
        deployment.check_not_deployed(content, checkpoint)
        checkpoints.load_weights(runner.model, content, checkpoint)
    if confusion_matrix:
        matrix = ConfusionMatrix(runner.test_dataloader.dataset, Path(confusion_matrix))
        runner.test_evaluator.metrics.append(matrix)
    if out:
        runner.test_evaluator.metrics.append(DumpDetResults(out_file_path=out))
    with _explained_run(cfg), shown_progress(runner):
        metrics = runner.test()
    if confusion_matrix:
        announce(f'{confusion_matrix} written')
    if show_dir:
        folder = Path(runner.work_dir, runner.timestamp, show_dir)
        announce(f'pictures drawn into {folder}')
    return metrics


def _prepare(
    config: str,
    task: str,
    data_root: str | None,
    work_dir: str | None,
    options: dict[str, Any] | None,
    launcher: str,
    **changes: Any,
) -> Config:
    """The config with everything that the arguments of both say.

    Args:
        changes: of :func:`_change_training`.
    """
    setup_cache_size_limit_of_dynamo()
    cfg = configs.read_config(config)
    cfg.launcher = launcher
    if data_root:
        work = configs.find_work_dir(cfg, work_dir, config)
        use_own_data(cfg, data_root, Path(work) / 'annotations')
    if task == 'train':
        _change_training(cfg, **changes)
    configs.merge_options(cfg, options)
    check_kinds(cfg)
    check_needs(cfg, training=task == 'train')
    cfg.work_dir = configs.find_work_dir(cfg, work_dir, config)
    configs.use_own_hooks(cfg)
    use_own_metrics(cfg, by_class=task == 'test')
    return cfg


def _change_training(
    cfg: Config,
    epochs: int | None,
    img_scale: Sequence[int] | None,
    batch_size: int | None,
    scales_lr: bool,
) -> None:
    """Set what :func:`train` has arguments of its own for; options go before them."""
    check_kinds(cfg)
    if not (cfg.get('train_cfg') and cfg.get('train_dataloader')):
        return  # the runner says so
    if img_scale:
        set_image_scale(cfg, img_scale)
    if epochs:
        set_epochs(cfg, epochs)
    if batch_size:
        set_batch_size(cfg, batch_size, scales_lr)


def _start_from(cfg: Config, resume: str | None) -> dict | None:
    """Set the checkpoint to start from; its content if it is resumed.

    ``resume`` is a path, 'auto' for the newest in the work dir, or None for
    what the config says.
    """
    if resume is None and cfg.get('resume'):
        resume = cfg.get('load_from') or 'auto'
    path = resume
    if resume == 'auto':
        path = checkpoints.newest_checkpoint(cfg.work_dir)
        if path is None:
            announce(f'Nothing to resume in {cfg.work_dir}: training starts afresh')
    if path is None:
        cfg.resume = False
        if cfg.get('load_from') and is_local(cfg.load_from):
            checkpoints.read_checkpoint(cfg.load_from)
        return None
    cfg.resume = True
    cfg.load_from = str(path)
    return checkpoints.check_resumable(path)


def _build_runner(cfg: Config) -> Runner:
    processes.use_gloo_on_cpu(cfg)
    shown = cfg.get('visualizer')
    if shown and Visualizer.check_instance_created(shown.get('name', '')):
        # An earlier run of this process has it, and would get what is drawn and logged.
        shown.name = f'{shown.name}_{time.monotonic_ns()}'
    with preflight.explained_build(cfg):
        if 'runner_type' in cfg:
            return RUNNERS.build(cfg)
        return TerminalRunner.from_cfg(cfg)


@contextmanager
def _explained_run(cfg: Config) -> Iterator[None]:
    """Turn what may befall a run from outside into a UserError."""
    try:
        with (
            checkpoints.explained_unpickling('pre-trained weights'),
            explained_late_build(cfg),
            explained_download(cfg),
        ):
            yield
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        last = checkpoints.newest_checkpoint(cfg.work_dir)
        rest = f'{last} is the last complete checkpoint, --resume goes on'
        raise UserError(
            f'{error.filename or cfg.work_dir} cannot be written: '
            f'{error.strerror}; {rest if last else "no checkpoint was saved"}'
        ) from error
