"""Detectors as ONNX graphs: written, and evaluated in other runtimes."""

import argparse
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from mmengine.runner import Runner
from torch import nn

from ..analysis.config import input_shape
from ..export.end_to_end import OUTPUTS
from ..export.graph_detector import check_graph_detector, run_by_graph
from ..export.onnx import export_onnx, graph_error
from ..export.runtimes import check_backend, check_packages, load_graph, quantize_graph
from ..utils.announce import announce
from ..utils.errors import UserError
from ..utils.files import check_writable_file, unfinished
from . import checkpoint
from .calibration_images import ImageBatches, Images, calibration_batches
from .configs import classes_of
from .deployment import INT8, deploy_model
from .detector import read_detector
from .end_to_end import check_end_to_end, export_end_to_end, write_script

# A graph is checked on an image that is larger by OTHER pixels.
OTHER = 64
MOST_ERROR = 1e-3  # relative, of float32 summed in another order


def export(args: argparse.Namespace) -> None:
    """What ``tools/export_onnx.py`` does with its arguments.

    The graph is compared with torch on an image of another size, where
    onnxruntime is installed, and appears under its name afterwards.

    Raises:
        UserError: as :func:`deploy`; a detector without a dense head; a
            package for ONNX is not installed; the graph's outputs differ.
    """
    quantizer = ['onnxruntime'] if args.precision == 'int8' else []
    try:
        check_packages('onnx', 'onnxscript', *quantizer)
    except ValueError as error:
        raise UserError(f'ONNX needs packages that are {error}') from error
    out = check_writable_file(args.out, '--out')
    cfg, model, content = read_detector(args.config, args.checkpoint)
    _check_floats(content, args.checkpoint)
    model = deploy_model(model, content, args.checkpoint)
    part = unfinished(out)
    try:
        size = args.size or input_shape(cfg)
        if args.end2end:
            prepare = check_end_to_end(cfg, model)
            classes = classes_of(cfg, content, args.checkpoint)
        names = export_onnx(model, size, part)
        told = _check_graph(model, size, part, out)
        if args.precision == 'int8':
            batches = calibration_batches(cfg, Images(args.calib, args.data_root, args.seed))
            quantize_graph(part, _network_inputs(model, batches), part)
            told += f', then quantized on {len(batches)} images'
        if args.end2end:
            names = OUTPUTS
            told += '; '
            told += export_end_to_end(cfg, model, prepare, classes, size, part, args.precision)
        part.replace(out)
    except ValueError as error:
        raise UserError(f'{cfg.filename}: {error}') from error
    finally:
        part.unlink(missing_ok=True)
    announce(f'{out} written, {told}, outputs: {", ".join(names)}')
    if args.end2end:
        script = write_script(out, prepare.color_type, classes)
        announce(f'{script} runs it without torch and mmdet')


def _check_graph(model: nn.Module, size: tuple[int, int], path: Path, out: Path) -> str:
    """What is known of a graph, in words."""
    if find_spec('onnxruntime') is None:
        return 'not checked (onnxruntime is not installed)'
    height, width = (side + OTHER for side in size)
    error = graph_error(model, (height, width), path)
    if error > MOST_ERROR:
        raise UserError(
            f'{out}: not written, its outputs in onnxruntime differ from '
            f"torch's by {error:.1g} on an image of {height} x {width}"
        )
    return f'equal to torch to {error:.1g} on an image of {height} x {width}'


def export_runner(runner: Runner, content: dict, args: argparse.Namespace) -> None:
    """Let another runtime compute the layers of a runner that is about to test.

    Raises:
        UserError: weights that are not the model's; a detector, or a
            precision, that the backend cannot serve, or its packages are not
            installed.
    """
    precision = args.precision or 'fp32'
    model = checkpoint.unwrap(runner.model)
    _check_floats(content, args.checkpoint)
    try:
        check_backend(args.backend, precision)
        check_graph_detector(model)
        deploy_model(model, content, args.checkpoint)
        path = Path(runner.work_dir) / f'{Path(args.checkpoint).stem}.onnx'
        path.parent.mkdir(parents=True, exist_ok=True)
        model.cpu()
        export_onnx(model, input_shape(runner.cfg), path)
        if precision == 'int8':
            batches = calibration_batches(runner.cfg, Images(args.calib))
            quantize_graph(path, _network_inputs(model, batches), path)
        run_by_graph(model, load_graph(args.backend, path, precision))
    except ValueError as error:
        raise UserError(f'--backend {args.backend}: {error}') from error
    announce(f'{path} written, {args.backend} evaluates it')


def _network_inputs(model: nn.Module, batches: ImageBatches) -> Iterator[np.ndarray]:
    """Images as the detector's network takes them, normalised and padded."""
    for batch in batches:
        yield model.data_preprocessor(batch)['inputs'].cpu().numpy()


def _check_floats(content: dict, path: str) -> None:
    if INT8 in content:
        raise UserError(
            f'checkpoint {path} computes in int8, which a graph does not get: name the trained one'
        )
