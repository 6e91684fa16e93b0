"""Training and evaluation, from parsed arguments to the last log line."""

import argparse
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path

from mmdet.engine.hooks.utils import trigger_visualization_hook
from mmdet.evaluation import DumpDetResults
from mmdet.registry import RUNNERS
from mmdet.utils import register_all_modules, setup_cache_size_limit_of_dynamo
from mmengine.config import Config, ConfigDict
from mmengine.runner import Runner

from ...utils.announce import announce
from ...utils.errors import UserError
from ...utils.files import NO_SPACE, check_writable_file
from ...workflow import checkpoint, configs, deployment, end_to_end, exporting, preflight
from ...workflow.calibration_images import Images
from ...workflow.config_parts import is_local, type_name
from ...workflow.downloads import explained_download
from ...workflow.metrics import use_own_metrics
from ...workflow.safe_globals import load_weights_only
from ..data.own_data import use_own_data
from ..show.confusion import ConfusionMatrix
from ..show.drawing import check_draws, draw_into_folders
from . import processes
from .check_config import check_config
from .image_scale import set_image_scale, warn_of_another_scale, warn_of_other_scales
from .last_batch import leave_out_a_batch_of_one
from .resuming import check_same_classes
from .schedule import set_batch_size, set_epochs, shorten_warm_up
from .sections import check_kinds, check_needs, explained_late_build
from .terminal import TerminalRunner, shown_progress


@processes.leaves_group
def train(args: argparse.Namespace) -> None:
    """What ``tools/train.py`` does with its arguments.

    Raises:
        UserError: a mistake in the command line, the config, the data or the
            checkpoint; before training starts.
    """
    cfg = _prepare(args, 'train')
    configs.use_training_hooks(cfg, args.val_loss, args.patience)
    if args.amp:
        configs.set_amp(cfg)
    if args.auto_scale_lr:
        configs.set_auto_scale_lr(cfg)
    state = _start_from(cfg, args.resume)
    if state is not None:
        check_same_classes(state, cfg, cfg.load_from)
        cfg.custom_hooks.append(dict(type='ResumeHook'))
    check_config(cfg, ('train', 'val'), args.skip_checks)
    runner = _build_runner(cfg)
    if state is not None:
        checkpoint.load_weights(runner.model, state, cfg.load_from)
        del state  # as large as the model and its optimizer
    preflight.check_model(runner.model, cfg)
    preflight.warn_if_frozen_at_random(runner.model, cfg)
    preflight.warn_if_frozen_projected(runner.model, cfg)
    warn_of_other_scales(cfg)
    with _explained_run(cfg):
        leave_out_a_batch_of_one(runner)
        if args.epochs or args.batch_size:
            shorten_warm_up(runner)
        with shown_progress(runner):
            runner.train()
    _say_where(runner, args)


def _say_where(runner: Runner, args: argparse.Namespace) -> None:
    """The last lines of a training."""
    hub = runner.message_hub.runtime_info
    best, last = hub.get('best_ckpt'), checkpoint.newest_checkpoint(runner.work_dir)
    found = best or last
    announce(f'log: {runner.log_dir}')
    if (curves := Path(runner.work_dir) / 'curves.png').exists():
        announce(f'curves: {curves}')
    if found is None:
        announce('no checkpoint was saved')
        return
    announce(f'{"best" if best else "last"} checkpoint: {found}')
    config = Path(runner.work_dir) / Path(args.config).name  # with all that was set
    command = shlex.join(['python', 'tools/test.py', str(config), str(found)])
    announce(f'to test it: {command}')


@processes.leaves_group
def test(args: argparse.Namespace) -> None:
    """What ``tools/test.py`` does with its arguments.

    Raises:
        UserError: as :func:`train`.
    """
    cfg = _prepare(args, 'test')
    # Loaded here, all of it: the runner takes what fits and logs the rest.
    cfg.load_from = None
    cfg.resume = False
    exported = args.checkpoint.endswith(end_to_end.SUFFIX)
    read = end_to_end.read_exported if exported else checkpoint.read_weights
    content = read(args.checkpoint)
    check_config(cfg, ('test',), args.skip_checks)
    if args.out:
        check_writable_file(args.out, '--out')
    if args.confusion_matrix:
        check_writable_file(args.confusion_matrix, '--confusion-matrix')
    if args.show or args.show_dir:
        check_draws(cfg)
        trigger_visualization_hook(cfg, args)
        draw_into_folders(cfg)
    if args.tta:
        _augment(cfg)
    preflight.check_classes(content, cfg, args.checkpoint)
    warn_of_another_scale(content, cfg, args.checkpoint)
    runner = _build_runner(cfg)
    preflight.check_model(runner.model, cfg)
    if exported:
        end_to_end.test_exported(runner, args)
    elif args.backend != 'torch':
        exporting.export_runner(runner, content, args)
    elif args.deploy:
        deployment.deploy_runner(
            runner, content, args.checkpoint, precision=args.precision, images=Images(args.calib)
        )
    else:
        deployment.check_not_deployed(content, args.checkpoint)
        checkpoint.load_weights(runner.model, content, args.checkpoint)
    if args.confusion_matrix:
        matrix = ConfusionMatrix(runner.test_dataloader.dataset, Path(args.confusion_matrix))
        runner.test_evaluator.metrics.append(matrix)
    if args.out:
        runner.test_evaluator.metrics.append(DumpDetResults(out_file_path=args.out))
    with _explained_run(cfg), shown_progress(runner):
        runner.test()
    if args.confusion_matrix:
        announce(f'{args.confusion_matrix} written')
    if args.show_dir:
        folder = Path(runner.work_dir, runner.timestamp, args.show_dir)
        announce(f'pictures drawn into {folder}')


def _prepare(args: argparse.Namespace, task: str) -> Config:
    """The config with everything that both tools' arguments say."""
    load_weights_only()
    setup_cache_size_limit_of_dynamo()
    register_all_modules(init_default_scope=False)
    cfg = configs.read_config(args.config)
    cfg.launcher = args.launcher
    if args.data_root:
        work = configs.find_work_dir(cfg, args.work_dir, args.config)
        use_own_data(cfg, args.data_root, Path(work) / 'annotations')
    if task == 'train':
        _use_options(cfg, args)
    configs.merge_options(cfg, args.cfg_options)
    check_kinds(cfg)
    check_needs(cfg, training=task == 'train')
    cfg.work_dir = configs.find_work_dir(cfg, args.work_dir, args.config)
    configs.use_own_hooks(cfg)
    use_own_metrics(cfg, by_class=task == 'test')
    return cfg


def _use_options(cfg: Config, args: argparse.Namespace) -> None:
    """What train.py's own options set; --cfg-options goes before them."""
    check_kinds(cfg)
    if not (cfg.get('train_cfg') and cfg.get('train_dataloader')):
        return  # the runner says so
    if args.img_scale:
        set_image_scale(cfg, args.img_scale)
    if args.epochs:
        set_epochs(cfg, args.epochs)
    if args.batch_size:
        set_batch_size(cfg, args.batch_size, args.auto_scale_lr)


def _start_from(cfg: Config, resume: str | None) -> dict | None:
    """Set the checkpoint to start from; its content if it is resumed.

    ``resume`` is a path, 'auto' for the newest in the work dir, or None for
    what the config says.
    """
    if resume is None and cfg.get('resume'):
        resume = cfg.get('load_from') or 'auto'
    path = resume
    if resume == 'auto':
        path = checkpoint.newest_checkpoint(cfg.work_dir)
        if path is None:
            announce(f'Nothing to resume in {cfg.work_dir}: training starts afresh')
    if path is None:
        cfg.resume = False
        if cfg.get('load_from') and is_local(cfg.load_from):
            checkpoint.read_checkpoint(cfg.load_from)
        return None
    cfg.resume = True
    cfg.load_from = str(path)
    return checkpoint.check_resumable(path)


def _build_runner(cfg: Config) -> Runner:
    processes.use_gloo_on_cpu(cfg)
    with preflight.explained_build(cfg):
        if 'runner_type' in cfg:
            return RUNNERS.build(cfg)
        return TerminalRunner.from_cfg(cfg)


@contextmanager
def _explained_run(cfg: Config) -> Iterator[None]:
    """Turn what may befall a run from outside into a UserError."""
    try:
        with (
            checkpoint.explained_unpickling('pre-trained weights'),
            explained_late_build(cfg),
            explained_download(cfg),
        ):
            yield
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        last = checkpoint.newest_checkpoint(cfg.work_dir)
        rest = f'{last} is the last complete checkpoint, --resume goes on'
        raise UserError(
            f'{error.filename or cfg.work_dir} cannot be written: '
            f'{error.strerror}; {rest if last else "no checkpoint was saved"}'
        ) from error


def _augment(cfg: Config) -> None:
    """Test-time augmentation; flipping where the config says nothing."""
    if 'tta_model' not in cfg:
        cfg.tta_model = dict(
            type='DetTTAModel',
            tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100),
        )
    dataset = cfg.test_dataloader.dataset
    while 'dataset' in dataset:
        dataset = dataset.dataset
    if 'tta_pipeline' not in cfg:
        *steps, pack = deepcopy(dataset.pipeline)
        pack = deepcopy(pack)
        pack.meta_keys = (
            'img_id',
            'img_path',
            'ori_shape',
            'img_shape',
            'scale_factor',
            'flip',
            'flip_direction',
        )
        flips = [dict(type='RandomFlip', prob=prob) for prob in (1.0, 0.0)]
        cfg.tta_pipeline = [*steps, dict(type='TestTimeAug', transforms=[flips, [pack]])]
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
    dataset.pipeline = _annotated_last(cfg.tta_pipeline)


def _annotated_last(pipeline: list[dict]) -> list[dict]:
    """A pipeline whose annotations are loaded behind the augmentation.

    The truth that is compared belongs to the original image: in front of it, as in
    mmdet's VOC configs, it would be flipped as the first copy is.
    """
    names = [type_name(step) for step in pipeline]
    if 'TestTimeAug' not in names:
        return pipeline
    at = names.index('TestTimeAug')
    loading = [step for step in pipeline[:at] if type_name(step) == 'LoadAnnotations']
    augment = deepcopy(pipeline[at])
    augment['transforms'][-1:-1] = [[step] for step in loading]
    others = [step for step in pipeline[:at] if step not in loading]
    return [*others, augment, *pipeline[at + 1 :]]
