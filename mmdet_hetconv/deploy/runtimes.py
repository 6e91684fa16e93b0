"""Graphs in other runtimes, to be compared with."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .onnx import open_session

# Which precisions a runtime has on CPUs, and the package it needs.
RUNTIMES = dict(onnxruntime=('fp32',), openvino=('fp32', 'bf16'))


def check_runtime(name: str) -> None:
    """Raise ValueError if a runtime is not installed."""
    for package in (name, 'onnx', 'onnxscript'):
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
        images: (B, C, H, W); the graph is compiled for this size alone.
    """
    array = images.contiguous().numpy()
    if name == 'onnxruntime':
        session = open_session(path)
        return lambda: session.run(None, {'images': array})
    import openvino

    model = openvino.Core().read_model(path)
    model.reshape(list(array.shape))
    kinds = dict(fp32=openvino.Type.f32, bf16=openvino.Type.bf16)
    settings: dict[str, Any] = dict(
        INFERENCE_PRECISION_HINT=kinds[precision],
        INFERENCE_NUM_THREADS=torch.get_num_threads(),
        PERFORMANCE_HINT='LATENCY',
    )
    request = openvino.compile_model(model, 'CPU', settings).create_infer_request()

    def run() -> list[np.ndarray]:
        outputs = request.infer([array])
        return [outputs[i] for i in range(len(outputs))]

    return run
