"""Graphs in other runtimes, to be compared with."""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .onnx import open_session

# Which precisions a runtime has on CPUs, and the package it needs.
RUNTIMES = dict(onnxruntime=('fp32', 'int8'), openvino=('fp32', 'bf16', 'int8'))


def check_runtime(name: str, precisions: Sequence[str] = ()) -> None:
    """Raise ValueError if a runtime, or what a precision needs, is not installed."""
    needed = [name, 'onnx', 'onnxscript']
    if name == 'openvino' and 'int8' in precisions:
        needed.append('nncf')
    for package in needed:
        if find_spec(package) is None:
            raise ValueError(f'{name}: {package} is not installed: pip install {package}')


def load_graph(
    name: str, path: str | Path, images: Tensor, precision: str
) -> Callable[[], list[np.ndarray]]:
    """A run of a graph of export_onnx() on images, as fast as the runtime can.

    It computes with as many threads as torch does.

    Args:
        name: of RUNTIMES.
        precision: one that the runtime has.

    Shape:
        images: (B, C, H, W); the graph is compiled for this size alone, and
        quantized on them for int8.
    """
    array = images.contiguous().numpy()
    if name == 'onnxruntime':
        if precision == 'int8':
            path = _quantize_for_onnxruntime(Path(path), array)
        session = open_session(path)
        return lambda: session.run(None, {'images': array})
    import openvino

    model = openvino.Core().read_model(path)
    model.reshape(list(array.shape))
    if precision == 'int8':
        import nncf

        model = nncf.quantize(model, nncf.Dataset([array]), subset_size=1)
    # Beside int8 the runtime chooses what the rest computes in.
    kinds = dict(fp32=openvino.Type.f32, bf16=openvino.Type.bf16)
    settings: dict[str, Any] = dict(
        INFERENCE_NUM_THREADS=torch.get_num_threads(), PERFORMANCE_HINT='LATENCY'
    )
    if precision in kinds:
        settings['INFERENCE_PRECISION_HINT'] = kinds[precision]
    request = openvino.compile_model(model, 'CPU', settings).create_infer_request()

    def run() -> list[np.ndarray]:
        outputs = request.infer([array])
        return [outputs[i] for i in range(len(outputs))]

    return run


def _quantize_for_onnxruntime(path: Path, images: np.ndarray) -> Path:
    """onnxruntime's own static quantization of a graph, in a file beside it."""
    from onnxruntime import quantization

    class Images(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.left = [{'images': images}]

        def get_next(self) -> dict[str, np.ndarray] | None:
            return self.left.pop() if self.left else None

    # Without VNNI products of bytes are added up in 16 bits, which 7 bits fit.
    reduce_range = not torch.cpu._is_vnni_supported()
    prepared, target = (path.with_suffix(f'.{part}.onnx') for part in ('prepared', 'int8'))
    quantization.quant_pre_process(path, prepared, skip_symbolic_shape=True)
    quantization.quantize_static(
        *(prepared, target, Images()), per_channel=True, reduce_range=reduce_range
    )
    return target
