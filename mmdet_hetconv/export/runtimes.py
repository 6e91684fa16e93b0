"""Graphs of export_onnx() in onnxruntime and OpenVINO, on the CPU."""

from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from ..deploy.precision import check_precision

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

# Which precisions a backend has.
BACKENDS = dict(onnxruntime=('fp32', 'int8'), openvino=('fp32', 'bf16', 'int8'))


class Graph(NamedTuple):
    """A compiled graph.

    Attributes:
        names: of its outputs.
        run: images (B, C, H, W) to the outputs, float32; of an end-to-end
            graph: an image (H, W, C), uint8, to boxes, scores and labels.
    """

    names: list[str]
    run: Callable[[np.ndarray], list[np.ndarray]]


def check_packages(*names: str) -> None:
    """Raise ValueError if a package is not installed."""
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        raise ValueError(f'not installed: pip install {" ".join(missing)}')


def check_backend(name: str, precision: str) -> None:
    """Refuse what cannot run here.

    Raises:
        ValueError: a package that is not installed, or a precision that the
            backend or the processor does not have.
    """
    if precision not in BACKENDS[name]:
        has = ' and '.join(BACKENDS[name])
        raise ValueError(f'precision={precision!r}: {name} has {has}')
    check_precision(precision, torch.device('cpu'))
    # The graphs of both are quantized by onnxruntime.
    quantizer = ['onnxruntime'] if precision == 'int8' else []
    try:
        check_packages(*dict.fromkeys(['onnx', 'onnxscript', name, *quantizer]))
    except ValueError as error:
        raise ValueError(f'{name}, {error}') from error


def open_session(source: str | Path | bytes) -> 'InferenceSession':
    """A session of onnxruntime on the CPU, of a graph's file or its content."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    graph = source if isinstance(source, bytes) else str(source)
    return onnxruntime.InferenceSession(graph, options, providers=['CPUExecutionProvider'])


def load_graph(
    backend: str, source: str | Path | bytes, precision: str, shape: tuple[int, ...] | None = None
) -> Graph:
    """Compile a graph for as many threads as torch uses.

    Args:
        backend: of BACKENDS.
        source: the graph's file, or its content.
        precision: one that the backend has; the graph of int8 is one of
            :func:`quantize_graph`.
        shape: of the only images that it is for, (B, C, H, W).
    """
    if backend == 'onnxruntime':
        session = open_session(source)
        names = [output.name for output in session.get_outputs()]
        of_images = session.get_inputs()[0].name
        return Graph(names, lambda images: session.run(None, {of_images: images}))
    import openvino

    model = openvino.Core().read_model(source)
    if shape:
        model.reshape(list(shape))
    settings: dict[str, Any] = dict(
        INFERENCE_NUM_THREADS=torch.get_num_threads(), PERFORMANCE_HINT='LATENCY'
    )
    # What is not quantized computes in float32: in bfloat16, which is the default
    # where the CPU has it, OpenVINO 2026.4 cannot compile some int8 convolutions.
    kinds = dict(fp32=openvino.Type.f32, bf16=openvino.Type.bf16, int8=openvino.Type.f32)
    settings['INFERENCE_PRECISION_HINT'] = kinds[precision]
    compiled = openvino.compile_model(model, 'CPU', settings)
    request = compiled.create_infer_request()

    def run(images: np.ndarray) -> list[np.ndarray]:
        outputs = request.infer([images])
        return [outputs[i] for i in range(len(outputs))]

    return Graph([output.any_name for output in compiled.outputs], run)


def quantize_graph(path: str | Path, batches: Iterable[np.ndarray], target: str | Path) -> None:
    """Write the graph in 8 bits, by onnxruntime's static quantization.

    Levels per tensor are the mean over the batches of their ranges, weights
    have theirs per filter.

    Args:
        path: of a graph of export_onnx().
        batches: calibration images, each (B, C, H, W) as the network takes them.
        target: the file to write; both backends run it.
    """
    from onnxruntime import quantization

    class Images(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(batches)

        def get_next(self) -> dict[str, np.ndarray] | None:
            images = next(self.left, None)
            return None if images is None else {'images': images}

    prepared = Path(target).with_suffix('.prepared.onnx')
    try:
        quantization.quant_pre_process(path, prepared, skip_symbolic_shape=True)
        quantization.quantize_static(
            *(prepared, target, Images()),
            per_channel=True,
            # Without VNNI products of bytes are added up in 16 bits, which 7 bits fit.
            reduce_range=not torch.cpu._is_vnni_supported(),
            extra_options=dict(CalibMovingAverage=True),
        )
    finally:
        prepared.unlink(missing_ok=True)
