"""From a dense checkpoint to a heterogeneous one, by configs."""

import argparse
import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.device import get_device
from torch import nn

from ..comfort.data.own_data import use_data
from ..convert import (
    DistilReport,
    Fit,
    calibrate,
    count_fitting,
    distil,
    find_pairs,
    load_projected,
    rearrange,
)
from ..layers import HetConv2d
from ..utils.announce import announce
from ..utils.errors import UserError
from ..utils.files import check_writable_file, save_whole, write_whole
from ..utils.table import format_table
from ..version import __version__
from . import checkpoint, configs, preflight
from .calibration_images import ImageBatches, choose_images, test_pipeline
from .evaluate import evaluate, has_annotations, metrics_table
from .layer_choice import choose_layers, converted
from .safe_globals import load_weights_only

# Images that tell how channels are to be permuted.
PERMUTATION_IMAGES = 32


def convert(args: argparse.Namespace) -> None:
    """What ``tools/convert_checkpoint.py`` does with its arguments.

    Raises:
        UserError: a mistake in the command line, the configs, the checkpoint
            or the images. The output file is not touched then.
    """
    load_weights_only()
    register_all_modules(init_default_scope=True)
    out = check_writable_file(args.out, '--out')
    beside = _config_beside(out, args)
    dense_cfg = configs.read_config(args.dense_config)
    het_cfg = configs.read_config(args.het_config)
    for cfg in (dense_cfg, het_cfg):
        configs.merge_options(cfg, args.cfg_options)
    content = checkpoint.read_weights(args.checkpoint)
    root = args.data_root
    if root and use_data(root, [dense_cfg, het_cfg], content):
        root = None  # the configs now name its images
    with preflight.explained_build(dense_cfg):
        dense = MODELS.build(dense_cfg.model)
    with preflight.explained_build(het_cfg):
        het = MODELS.build(het_cfg.model)
    preflight.check_model(het, het_cfg)
    part = _load_dense(dense, content, args.checkpoint)
    with _explained(args):
        find_pairs(dense.get_submodule(part), het.get_submodule(part))
    dense.to(get_device()).eval()
    het.to(get_device()).eval()
    evaluates = args.eval and not part and has_annotations(dense_cfg)
    batches = None
    if args.method == 'lstsq':
        paths = choose_images(root, dense_cfg, args.calib, args.seed)
        batches = ImageBatches(paths, test_pipeline(het_cfg))

    started = time.monotonic()
    metrics = {}
    if evaluates:
        metrics['dense'] = evaluate(dense_cfg, dense)
    with _explained(args):
        if beside:
            if part:
                raise ValueError('a budget needs the checkpoint of a whole detector')
            targets = (args.target_macs, args.target_ms)
            run = _forward(dense, part)
            layers = choose_layers(dense, het, dense_cfg, batches, run, *targets)
            het_cfg = converted(het_cfg, dense_cfg.model, layers, _arrangement(het))
            het = MODELS.build(het_cfg.model).to(get_device()).eval()
        _project(dense, het, part)
        fits, kept = _calibrate(dense, het, part, batches, args.permute)
        distilled = _distil(dense, het, part, batches, args.distil)
    if evaluates:
        stage = 'distilled' if distilled else 'calibrated' if fits else 'projected'
        metrics[stage] = evaluate(het_cfg, het)
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
    if beside:
        write_whole(beside, het_cfg.pretty_text.encode())
        announce(f'{beside} written, the config with a p for each layer')
    _write(out, het, part, content, het_cfg, report)
    announce(f'{out} written, {report["seconds"]:.0f} s')


@contextmanager
def _explained(args: argparse.Namespace) -> Iterator[None]:
    """What the detectors are not fit for is a mistake in the command line."""
    try:
        yield
    except UserError:
        raise
    except ValueError as error:
        raise UserError(
            f'{args.dense_config} cannot be converted into {args.het_config}: {error}'
        ) from error


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
        parts.append(metrics_table(metrics))
    return '\n\n'.join(parts) or 'Dense weights projected, free of data.'


def _config_beside(out: Path, args: argparse.Namespace) -> Path | None:
    """Where the config with a p for each layer goes, if there is a budget."""
    if not (args.target_macs or args.target_ms):
        return None
    path = out.with_suffix('.py')
    taken = (out, Path(args.dense_config), Path(args.het_config))
    if any(path.resolve() == other.resolve() for other in taken):
        raise UserError(
            f'--out {out}: the config that is written beside it would replace {path}; '
            'name another file'
        )
    return path


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


def _project(dense: nn.Module, het: nn.Module, part: str) -> None:
    load_projected(dense.get_submodule(part), het.get_submodule(part))


def _arrangement(het: nn.Module) -> str:
    """Of all HetConv layers.

    Raises:
        ValueError: they have several.
    """
    found = {layer.arrangement for layer in het.modules() if isinstance(layer, HetConv2d)}
    if len(found) > 1:
        raise ValueError(f'a budget needs layers of one arrangement, it has {sorted(found)}')
    return found.pop()


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
    # Two, as one of them judges.
    count = max(2, count_fitting(*pair, batches[0], run))
    if count < len(batches):
        announce(
            f'layers are fitted to {count} of the {len(batches)} images: '
            'as many unfinished forward passes fit into 4 GiB'
        )
        batches = ImageBatches(batches.paths[:count], batches.pipeline)
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
