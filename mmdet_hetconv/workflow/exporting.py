"""Detectors as ONNX graphs: written, and evaluated in other runtimes."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from mmengine.config import Config
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
from .calibration_images import TO_QUANTIZE, Images, calibration_batches, network_inputs
from .checkpoints import checkpoint as checkpoints
from .config.configs import classes_of
from .config.detector import read_detector
from .deployment import INT8, deploy_model
from .end_to_end import check_end_to_end, export_end_to_end, write_script

# A graph is checked on an image that is larger by OTHER pixels.
OTHER = 64
MOST_ERROR = 1e-3  # relative, of float32 summed in another order


@dataclass
class Exported:
    """A graph that was written.

    Attributes:
        path: its file.
        outputs: their names, in order.
        checks: what it was compared with, and the result, in words.
        script: runs an end-to-end graph without torch and mmdet; else None.
    """

    path: Path
    outputs: tuple[str, ...]
    checks: str
    script: Path | None


def export(
    config: str | Config,
    checkpoint: str,
    out: str | Path,
    *,
    end2end: bool = False,
    precision: str = 'fp32',
    size: Sequence[int] | None = None,
    images: Images = TO_QUANTIZE,
) -> Exported:
    """Write a detector's inference form as an ONNX graph.

    The graph is compared with torch on an image of another size, where onnxruntime is
    installed, and appears under its name afterwards.

    Args:
        config: of the detector, a file or at hand.
        checkpoint: trained or deployed.
        out: the file to write.
        end2end: from an image, uint8 (H, W, C) as cv2.imread gives it, to boxes in its
            pixels, scores and labels; else from normalised images to the raw outputs of
            the dense head.
        precision: 'fp32' or 'int8'.
        size: height and width of the image to trace with; the config's test size by default.
        images: that set the levels of int8.

    Raises:
        UserError: as :func:`deploy`; a detector without a dense head; a package for ONNX
            is not installed; the graph's outputs differ.
    """
    quantizer = ['onnxruntime'] if precision == 'int8' else []
    try:
        check_packages('onnx', 'onnxscript', *quantizer)
    except ValueError as error:
        raise UserError(f'ONNX needs packages that are {error}') from error
    out = check_writable_file(out, '--out')
    cfg, model, content = read_detector(config, checkpoint)
    _check_floats(content, checkpoint)
    model = deploy_model(model, content, checkpoint)
    part = unfinished(out)
    try:
        height, width = size or input_shape(cfg)
        if end2end:
            prepare = check_end_to_end(cfg, model)
            classes = classes_of(cfg, content, checkpoint)
        names = export_onnx(model, (height, width), part)
        told = _check_graph(model, (height, width), part, out)
        if precision == 'int8':
            batches = calibration_batches(cfg, images)
            quantize_graph(part, network_inputs(model, batches), part)
            told += f', then quantized on {len(batches)} images'
        if end2end:
            names = OUTPUTS
            told += '; '
            told += export_end_to_end(
                cfg, model, prepare, classes, (height, width), part, precision
            )
        part.replace(out)
    except ValueError as error:
        raise UserError(f'{cfg.filename}: {error}') from error
    finally:
        part.unlink(missing_ok=True)
    script = write_script(out, prepare.color_type, classes) if end2end else None
    return Exported(out, tuple(names), told, script)


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


def export_runner(
    runner: Runner,
    content: dict,
    path: str,
    backend: str,
    *,
    precision: str = 'fp32',
    images: Images = TO_QUANTIZE,
) -> None:
    """Let another runtime compute the layers of a runner that is about to test.

    Args:
        content: of the checkpoint `path`.
        backend: the runtime.
        precision, images: as for :func:`export`.

    Raises:
        UserError: weights that are not the model's; a detector, or a
            precision, that the backend cannot serve, or its packages are not
            installed.
    """
    model = checkpoints.unwrap(runner.model)
    _check_floats(content, path)
    try:
        check_backend(backend, precision)
        check_graph_detector(model)
        deploy_model(model, content, path)
        graph = Path(runner.work_dir) / f'{Path(path).stem}.onnx'
        graph.parent.mkdir(parents=True, exist_ok=True)
        model.cpu()
        export_onnx(model, input_shape(runner.cfg), graph)
        if precision == 'int8':
            batches = calibration_batches(runner.cfg, images)
            quantize_graph(graph, network_inputs(model, batches), graph)
        run_by_graph(model, load_graph(backend, graph, precision))
    except ValueError as error:
        raise UserError(f'--backend {backend}: {error}') from error
    announce(f'{graph} written, {backend} evaluates it')


def _check_floats(content: dict, path: str) -> None:
    if INT8 in content:
        raise UserError(
            f'checkpoint {path} computes in int8, which a graph does not get: name the trained one'
        )
