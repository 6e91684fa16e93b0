"""A trained dense detector becomes a HetConv detector."""

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.device import get_device
from torch import nn

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
from .calibration_images import TO_FIT, ImageBatches, Images, calibration_batches
from .checkpoints import checkpoint as checkpoints
from .config.configs import dataset_meta, read_config
from .config.detector import build_detector
from .evaluation import evaluate, has_annotations, metrics_table
from .layer_choice import choose_layers, converted

# Images that tell how channels are to be permuted.
PERMUTATION_IMAGES = 32


@dataclass
class Conversion:
    """A converted detector.

    Attributes:
        cfg: of the HetConv detector; under a budget it has a p for each layer.
        model: on the device where it was converted, in eval mode.
        report: images, relative errors by layer, metrics by stage, seconds: what the
            checkpoint keeps.
        meta: of the dense detector's data set.
        part: 'backbone' if that alone was converted, else ''.
    """

    cfg: Config
    model: nn.Module
    report: dict[str, Any]
    meta: dict[str, Any]
    part: str = ''

    def content(self) -> dict[str, Any]:
        """The content of its checkpoint file."""
        prefix = f'{self.part}.' if self.part else ''
        state = {
            key: value.cpu().clone()
            for key, value in self.model.state_dict().items()
            if key.startswith(prefix)
        }
        meta = dict(
            mmdet_hetconv_version=__version__, cfg=self.cfg.pretty_text, conversion=self.report
        )
        return dict(state_dict=state, meta=meta | self.meta)


def convert(
    dense_config: str | Config,
    checkpoint: str,
    het_config: str | Config,
    out: str | Path,
    *,
    images: Images | None = TO_FIT,
    permute: bool = False,
    distil: Mapping[str, float] | None = None,
    target_macs: float | None = None,
    target_ms: float | None = None,
    evaluates: bool = True,
) -> Conversion:
    """Write the checkpoint of a HetConv detector, made of a dense detector's.

    Under a budget its config is written beside, named as ``out`` with the ending .py.

    Args:
        dense_config: of the dense detector, a file or at hand.
        checkpoint: the dense detector's, or its backbone's alone: a file, a URL or
            'torchvision://NAME'.
        het_config: of the same detector with HetConv layers.
        out: the file to write; it is not touched if anything fails.
        images, permute, distil, target_macs, target_ms, evaluates: as for
            :func:`convert_detector`.

    Raises:
        UserError: a mistake in the configs, the checkpoint, the images or the budget.
    """
    out = check_writable_file(out, '--out')
    dense_cfg, het_cfg = read_config(dense_config), read_config(het_config)
    beside = None
    if target_macs or target_ms:
        beside = _config_beside(out, dense_cfg, het_cfg)
    content = checkpoints.read_weights(checkpoint)
    dense = build_detector(dense_cfg)
    part = _load_dense(dense, content, checkpoint)
    conversion = convert_detector(
        dense_cfg,
        dense,
        het_cfg,
        part=part,
        images=images,
        permute=permute,
        distil=distil,
        target_macs=target_macs,
        target_ms=target_ms,
        evaluates=evaluates,
    )
    conversion.meta |= dataset_meta(content)
    if beside:
        write_whole(beside, conversion.cfg.pretty_text.encode())
        announce(f'{beside} written, the config with a p for each layer')
    save_whole(conversion.content(), out)
    announce(f'{out} written, {conversion.report["seconds"]:.0f} s')
    return conversion


def convert_detector(
    dense_cfg: Config,
    dense: nn.Module,
    het_cfg: Config,
    *,
    part: str = '',
    images: Images | None = TO_FIT,
    permute: bool = False,
    distil: Mapping[str, float] | None = None,
    target_macs: float | None = None,
    target_ms: float | None = None,
    evaluates: bool = True,
) -> Conversion:
    """Convert a dense detector in memory to the HetConv detector of a config.

    Args:
        dense_cfg: of the dense detector.
        dense: with its weights; moved to the device that mmengine finds, in eval mode.
        het_cfg: of the same detector with HetConv layers.
        part: 'backbone' converts that alone.
        images: to fit the layers to, without labels; None projects the weights.
        permute: choose which channels share a block, where their order is free.
        distil: steps or minutes for which all layers are then trained together towards
            the dense detector, see :func:`mmdet_hetconv.convert.distil`; None for none.
        target_macs: share of the dense detector's MACs; each layer gets a p of its own.
        target_ms: milliseconds of one image deployed on this machine, in its place.
        evaluates: on the test set of the configs, before and after, if it has annotations.

    Raises:
        UserError: the detectors are not the same but for HetConv; images that cannot be
            read; a budget out of reach.
    """
    budget = bool(target_macs or target_ms)
    if images is None and (permute or distil or budget):
        raise UserError('to permute, to distil and a budget need images')
    het = build_detector(het_cfg)
    try:
        find_pairs(dense.get_submodule(part), het.get_submodule(part))
        if budget and part:
            raise ValueError('a budget needs the checkpoint of a whole detector')
        dense.to(get_device()).eval()
        het.to(get_device())
        evaluates = evaluates and not part and has_annotations(dense_cfg)
        batches = images and calibration_batches(dense_cfg, images, pipeline_of=het_cfg)
        started = time.monotonic()
        metrics = {}
        if evaluates:
            metrics['dense'] = evaluate(dense_cfg, dense)
        forward = _forward(dense, part)
        if budget:
            layers = choose_layers(dense, het, dense_cfg, batches, forward, target_macs, target_ms)
            het_cfg = converted(het_cfg, dense_cfg.model, layers, _arrangement(het))
            het = MODELS.build(het_cfg.model).to(get_device()).eval()
        pair = dense.get_submodule(part), het.get_submodule(part)
        load_projected(*pair)
        fits, kept, distilled = {}, {}, None
        if batches:
            fits, kept = _calibrate(*pair, batches, forward, permute)
        if distil:
            distilled = _distil(*pair, batches, forward, distil)
    except UserError:
        raise
    except ValueError as error:
        raise UserError(
            f'{dense_cfg.filename} cannot be converted into {het_cfg.filename}: {error}'
        ) from error
    if evaluates:
        stage = 'distilled' if distilled else 'calibrated' if fits else 'projected'
        metrics[stage] = evaluate(het_cfg, het)
    report = dict(
        method='lstsq' if batches else 'free',
        images=len(batches or ()),
        permuted={name: list(shares) for name, shares in kept.items()},
        relative_error={name: fit.after for name, fit in fits.items()},
        distilled=distilled and dataclasses.asdict(distilled),
        metrics=metrics,
        seconds=round(time.monotonic() - started, 1),
    )
    announce(describe(fits, kept, metrics))
    return Conversion(het_cfg, het, report, {}, part)


def describe(
    fits: dict[str, Fit], kept: dict[str, tuple[float, float]], metrics: dict[str, dict]
) -> str:
    """Format the results of a conversion as tables."""
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


def _config_beside(out: Path, dense_cfg: Config, het_cfg: Config) -> Path:
    """Where the config with a p for each layer goes."""
    path = out.with_suffix('.py')
    taken = (out, Path(dense_cfg.filename or ''), Path(het_cfg.filename or ''))
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
    checkpoints.load_weights(model, content, path)
    return part


def _arrangement(het: nn.Module) -> str:
    """The arrangement that all HetConv layers have.

    Raises:
        ValueError: they have more than one.
    """
    found = {layer.arrangement for layer in het.modules() if isinstance(layer, HetConv2d)}
    if len(found) > 1:
        raise ValueError(f'a budget needs layers of one arrangement, it has {sorted(found)}')
    return found.pop()


def _calibrate(
    dense: nn.Module,
    het: nn.Module,
    batches: ImageBatches,
    forward: Callable[[nn.Module, dict], object],
    permute: bool,
) -> tuple[dict[str, Fit], dict[str, tuple[float, float]]]:
    """Fit all layers; returns the fits, and the shares kept before and after a permutation."""
    kept = {}
    if permute:
        few = ImageBatches(batches.paths[:PERMUTATION_IMAGES], batches.pipeline)
        kept = rearrange(dense, het, few, forward)
    # Two, as one of them judges.
    count = max(2, count_fitting(dense, het, batches[0], forward))
    if count < len(batches):
        announce(
            f'layers are fitted to {count} of the {len(batches)} images: '
            'as many unfinished forward passes fit into 4 GiB'
        )
        batches = ImageBatches(batches.paths[:count], batches.pipeline)
    return calibrate(dense, het, batches, forward, show_progress=True), kept


def _distil(
    dense: nn.Module,
    het: nn.Module,
    batches: ImageBatches,
    forward: Callable[[nn.Module, dict], object],
    length: Mapping[str, float],
) -> DistilReport:
    """Train all layers together towards the dense detector."""
    report = distil(dense, het, batches, forward, log=announce, **length)
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
