"""From a dense checkpoint to a heterogeneous one, by configs."""

import argparse
import dataclasses
import math
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from mmcv.transforms import Compose
from mmdet.registry import DATASETS, MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.device import get_device
from torch import nn

from ..convert import DistilReport, Fit, calibrate, distil, find_pairs, load_projected, rearrange
from ..datasets.config_parts import join_root, leaf_datasets
from ..datasets.folders import find_data
from ..datasets.images import IMAGE_ENDINGS, check_images
from ..datasets.own_data import use_own_data
from ..utils.announce import announce
from ..utils.errors import UserError
from ..utils.table import format_table
from ..version import __version__
from . import checkpoint, configs, preflight
from .evaluating import evaluate
from .files import check_writable_file, save_whole
from .safe_globals import load_weights_only

# Images that tell how channels are to be permuted.
PERMUTATION_IMAGES = 32


class ImageBatches(Sequence):
    """Images through a test pipeline, one per batch, read when asked for."""

    def __init__(self, paths: Sequence[str], pipeline: Sequence[dict]):
        self.paths = paths
        self.pipeline = pipeline
        self._transform = Compose([step for step in pipeline if 'Annotation' not in step['type']])

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> dict:
        sample = dict(img_path=self.paths[number], img_id=number)
        return {key: [value] for key, value in self._transform(sample).items()}


def convert(args: argparse.Namespace) -> None:
    """What ``tools/convert_checkpoint.py`` does with its arguments.

    Raises:
        UserError: a mistake in the command line, the configs, the checkpoint
            or the images. The output file is not touched then.
    """
    load_weights_only()
    register_all_modules(init_default_scope=True)
    out = check_writable_file(args.out, '--out')
    dense_cfg = configs.read_config(args.dense_config)
    het_cfg = configs.read_config(args.het_config)
    for cfg in (dense_cfg, het_cfg):
        configs.merge_options(cfg, args.cfg_options)
    content = checkpoint.read_weights(args.checkpoint)
    root = args.data_root
    if root and _use_data(root, dense_cfg, het_cfg, content):
        root = None  # the configs now name its images
    with preflight.explained_build(dense_cfg):
        dense = MODELS.build(dense_cfg.model)
    with preflight.explained_build(het_cfg):
        het = MODELS.build(het_cfg.model)
    preflight.check_model(het, het_cfg)
    part = _load_dense(dense, content, args.checkpoint)
    dense.to(get_device()).eval()
    het.to(get_device()).eval()
    evaluates = args.eval and not part and _has_annotations(dense_cfg)
    batches = None
    if args.method == 'lstsq':
        paths = _choose_images(root, dense_cfg, args.calib, args.seed)
        batches = ImageBatches(paths, _test_pipeline(het_cfg))

    started = time.monotonic()
    metrics = {}
    if evaluates:
        metrics['dense'] = evaluate(dense_cfg, dense)
    try:
        _project(dense, het, part)
        if evaluates:
            metrics['projected'] = evaluate(het_cfg, het)
        fits, kept = _calibrate(dense, het, part, batches, args.permute)
        if evaluates and fits:
            metrics['calibrated'] = evaluate(het_cfg, het)
        distilled = _distil(dense, het, part, batches, args.distil)
    except ValueError as error:
        raise UserError(
            f'{args.dense_config} cannot be converted into {args.het_config}: {error}'
        ) from error
    if evaluates and distilled:
        metrics['distilled'] = evaluate(het_cfg, het)
    report = dict(
        method=args.method,
        images=len(batches or ()),
        permuted={name: list(shares) for name, shares in kept.items()},
        relative_error={name: fit.after for name, fit in fits.items()},
        distilled=distilled and dataclasses.asdict(distilled),
        metrics=metrics,
        seconds=round(time.monotonic() - started, 1),
    )
    announce(describe(fits, kept, metrics))
    _write(out, het, part, content, het_cfg, report)
    announce(f'{out} written, {report["seconds"]:.0f} s')


def describe(
    fits: dict[str, Fit], kept: dict[str, tuple[float, float]], metrics: dict[str, dict]
) -> str:
    """The tables of a conversion's report."""
    parts = []
    if fits:
        head = ('layer', 'error before', 'after', 'ridge', 'positions')
        if kept:
            head += ('kept before', 'permuted')
        rows = []
        for name, fit in fits.items():
            ridge = 'kept' if fit.ridge == math.inf else f'{fit.ridge:g}'
            row = [name, f'{fit.before:.3f}', f'{fit.after:.3f}', ridge]
            row.append(fit.positions)
            if kept:
                row += [f'{share:.2f}' for share in kept.get(name, ())] or ['', '']
            rows.append(row)
        parts.append(
            'Relative error of each layer on held-out images, with projected '
            'and with fitted weights:\n' + format_table(head, rows)
        )
    if metrics:
        names = list(metrics['dense'])
        rows = [
            [stage, *(f'{values[name]:.4f}' for name in names)] for stage, values in metrics.items()
        ]
        parts.append(format_table(('weights', *names), rows))
    return '\n\n'.join(parts) or 'Dense weights projected, free of data.'


def _load_dense(dense: nn.Module, content: dict, path: str) -> str:
    """Load a detector's weights, or those of a backbone alone.

    Returns:
        the part that was loaded, '' for the whole detector.
    """
    state = content.get('state_dict', content)
    is_detector = any('backbone.' in key for key in state)
    part = '' if is_detector else 'backbone'
    model = dense.get_submodule(part)
    checkpoint.load_weights(model, content, path)
    return part


def _use_data(root: str, dense_cfg: Config, het_cfg: Config, content: dict) -> bool:
    """Point both configs at an annotated data set, if it is one.

    That needs annotations, of the classes that the checkpoint knows. The
    images of any other folder still serve for calibration.
    """
    try:
        data = find_data(root, 'COCO')
    except UserError as error:
        if not Path(root).is_dir():
            raise
        announce(f'{error}; its images are used without annotations')
        return False
    known = (content.get('meta') or {}).get('dataset_meta') or {}
    if tuple(known.get('classes') or ()) != tuple(data.classes):
        announce(
            f'the classes of {root} are not those of the checkpoint: its '
            'images are used without annotations'
        )
        return False
    for cfg in (dense_cfg, het_cfg):
        use_own_data(cfg, root)
    return True


def _test_pipeline(cfg: Config) -> list[dict]:
    if not cfg.get('test_dataloader'):
        raise UserError(f'config {cfg.filename} has no test_dataloader')
    _, leaf = next(leaf_datasets(cfg.test_dataloader.dataset, ''))
    if not leaf.get('pipeline'):
        raise UserError(f'config {cfg.filename} has no test pipeline')
    return leaf.pipeline


def _choose_images(root: str | None, cfg: Config, wanted: int, seed: int) -> list[str]:
    """Paths of calibration images, checked, drawn from all there are."""
    if root:
        where = f'--data-root {root}'
        paths = sorted(
            str(path) for path in Path(root).rglob('*') if path.suffix.lower() in IMAGE_ENDINGS
        )
    else:
        where = "the config's train_dataloader"
        paths = sorted(_training_images(cfg))
    if not paths:
        raise UserError(f'{where} has no images to calibrate with')
    if len(paths) < wanted:
        announce(f'--calib {wanted}: {where} has {len(paths)} images')
    chosen = random.Random(seed).sample(paths, min(wanted, len(paths)))
    check_images(chosen, where)
    return chosen


def _training_images(cfg: Config) -> list[str]:
    if not cfg.get('train_dataloader'):
        raise UserError(
            f'config {cfg.filename} has no train_dataloader; name a folder '
            'of images with --data-root'
        )
    paths = []
    for key, leaf in leaf_datasets(cfg.train_dataloader.dataset, 'train_dataloader.dataset'):
        try:
            dataset = DATASETS.build(dict(leaf, pipeline=[], lazy_init=False))
        except (FileNotFoundError, AssertionError) as error:
            raise UserError(
                f'{key} cannot be read ({error}); name a folder of images with --data-root'
            ) from error
        paths += [dataset.get_data_info(number)['img_path'] for number in range(len(dataset))]
    return paths


def _project(dense: nn.Module, het: nn.Module, part: str) -> None:
    dense, het = dense.get_submodule(part), het.get_submodule(part)
    find_pairs(dense, het)
    load_projected(dense, het)


def _calibrate(
    dense: nn.Module, het: nn.Module, part: str, batches: ImageBatches | None, permute: bool
) -> tuple[dict[str, Fit], dict[str, tuple[float, float]]]:
    """The fits of all layers, and what a permutation keeps."""
    if batches is None:
        return {}, {}
    run = _forward(dense, part)
    pair = dense.get_submodule(part), het.get_submodule(part)
    kept = {}
    if permute:
        few = ImageBatches(batches.paths[:PERMUTATION_IMAGES], batches.pipeline)
        kept = rearrange(*pair, few, run)
    return calibrate(*pair, batches, run, show_progress=True), kept


def _distil(
    dense: nn.Module,
    het: nn.Module,
    part: str,
    batches: ImageBatches | None,
    length: dict[str, float] | None,
) -> DistilReport | None:
    """All layers together, where --distil says for how long."""
    if batches is None or length is None:
        return None
    run = _forward(dense, part)
    pair = dense.get_submodule(part), het.get_submodule(part)
    report = distil(*pair, batches, run, log=announce, **length)
    announce(
        f'distilled in {report.steps} steps ({report.stopped}): error on held-out images '
        f'{report.before:.4f} before, {report.after:.4f} after'
    )
    return report


def _forward(dense: nn.Module, part: str) -> Callable[[nn.Module, dict], object]:
    """Runs the converted part of a detector on images."""

    def run(model: nn.Module, batch: dict) -> object:
        batch = dense.data_preprocessor(batch)
        if part:
            return model(batch['inputs'])
        # Without what turns the outputs into boxes, where that is separate.
        return model(**batch, mode='tensor')

    return run


def _has_annotations(cfg: Config) -> bool:
    if not (cfg.get('test_dataloader') and cfg.get('test_evaluator')):
        return False
    for key, leaf in leaf_datasets(cfg.test_dataloader.dataset, 'test_dataloader.dataset'):
        path = join_root(leaf, leaf.get('ann_file', ''))
        if not Path(path).is_file():
            announce(f'{key}: {path} does not exist, nothing is evaluated')
            return False
    return True


def _write(out: Path, het: nn.Module, part: str, content: dict, cfg: Config, report) -> None:
    """Write the checkpoint; nobody ever sees a part of it."""
    prefix = f'{part}.' if part else ''
    state = {
        key: value.cpu().clone()
        for key, value in het.state_dict().items()
        if key.startswith(prefix)
    }
    meta = dict(mmdet_hetconv_version=__version__, cfg=cfg.pretty_text, conversion=report)
    dense_meta = content.get('meta') or {}
    if 'dataset_meta' in dense_meta:
        meta['dataset_meta'] = dense_meta['dataset_meta']
    save_whole(dict(state_dict=state, meta=meta), out)
