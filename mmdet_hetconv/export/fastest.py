"""The fastest runtime of a detector's backbone, neck and dense head, and the graph it runs."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..deploy.precision import ROUNDING
from ..kernels import first_run
from ..utils.image_channels import image_channels
from ..utils.timing import times_in_turns
from .graph_detector import check_graph_detector, run_by_graph
from .onnx import RawOutputs, export_onnx
from .runtimes import BACKENDS, check_backend, load_graph, quantize_graph

OWN = 'own kernels'
VERSION = 1  # of what StoredGraph.state_dict() returns
ROUNDS = 9
WARM_UP = 2
# Relative L2 difference to float32 in the worst output; a graph beyond it is not used.
MOST_DIFFERENCE = dict(fp32=1e-3, bf16=ROUNDING, int8=ROUNDING)


@dataclass(frozen=True)
class StoredGraph:
    """A graph of export_onnx() that a checkpoint keeps.

    Attributes:
        backend: the runtime that runs it, of BACKENDS.
        precision: in which it computes.
        onnx: the content of its file.
    """

    backend: str
    precision: str
    onnx: bytes

    def state_dict(self) -> dict[str, Any]:
        """Plain values and one tensor, which torch.load(weights_only=True) reads."""
        values = torch.frombuffer(bytearray(self.onnx), dtype=torch.uint8)
        return dict(version=VERSION, backend=self.backend, precision=self.precision, onnx=values)

    @classmethod
    def from_state_dict(cls, state: Any) -> 'StoredGraph':
        """Read what state_dict() wrote.

        Raises:
            ValueError: it has another version or other values.
        """
        if not isinstance(state, dict) or state.get('version') != VERSION:
            raise ValueError('it was stored by another version of mmdet_hetconv')
        backend, precision, values = (state.get(key) for key in ('backend', 'precision', 'onnx'))
        if backend not in BACKENDS or precision not in BACKENDS[backend]:
            raise ValueError(f'no runtime is {backend!r} in {precision!r}')
        if not isinstance(values, Tensor) or values.dtype != torch.uint8:
            raise ValueError('it is not a tensor of bytes')
        return cls(backend, precision, values.numpy().tobytes())

    def serve(self, detector: nn.Module) -> None:
        """Let the graph compute a detector's backbone, neck and dense head, on the CPU.

        Args:
            detector: changed in place.

        Raises:
            ValueError: the runtime is not installed or cannot read the graph; the
                detector has other parts than a graph replaces.
        """
        check_graph_detector(detector)
        check_backend(self.backend, self.precision)
        try:
            graph = load_graph(self.backend, self.onnx, self.precision)
        except Exception as error:  # each runtime has its own kinds
            raise ValueError(f'{self.backend} cannot read it') from error
        run_by_graph(detector.cpu(), graph)


@dataclass(frozen=True)
class RuntimeChoice:
    """The times of a detector's backbone, neck and dense head by runtime.

    Attributes:
        size: height and width of the image.
        precision: of all of them.
        ms: milliseconds of one image by runtime, the fastest first.
        differences: from float32 in the worst output of a graph, relative, by runtime.
        refused: why others are not among them, by runtime.
        graph: what the fastest runs; None for the project's own kernels.
    """

    size: tuple[int, int]
    precision: str
    ms: dict[str, float]
    differences: dict[str, float]
    refused: dict[str, str]
    graph: StoredGraph | None

    def __str__(self) -> str:
        (first, least), *others = self.ms.items()
        height, width = self.size
        text = f'fastest in {self.precision} at {height} x {width}: {first}, {least:.2f} ms'
        if first in self.differences:
            text += f', its outputs within {self.differences[first]:.1g} of float32'
        text += ''.join(f'; {name} {ms:.2f} ms ({ms / least:.2f}x)' for name, ms in others)
        return text + ''.join(f'; not {name}: {why}' for name, why in self.refused.items())


@torch.no_grad()
def choose_runtime(
    detector: nn.Module,
    in_float32: nn.Module,
    size: tuple[int, int],
    precision: str,
    calibration: Callable[[], Iterable[np.ndarray]] = tuple,
) -> RuntimeChoice:
    """Time a deployed detector in the runtimes that are installed and pick the fastest.

    Args:
        detector: of mmdet, in inference form, on the CPU.
        in_float32: the same detector, in float32; it is exported.
        size: height and width of the image that is timed.
        precision: of `detector` and the graphs.
        calibration: gives the images that set the levels of int8, each (1, C, H, W) as
            the network takes them; the first one is what graphs are compared on.
    """
    image = torch.randn(1, image_channels(detector), *size)
    own = RawOutputs(detector)
    runs: dict[str, Callable[[], object]] = {
        OWN: lambda: own(image.contiguous(memory_format=torch.channels_last))
    }
    compared = next(iter(calibration()), image.numpy())
    graphs: dict[str, bytes] = {}
    differences, refused = {}, {}
    with TemporaryDirectory() as folder:
        path = Path(folder) / 'detector.onnx'
        for name in BACKENDS:
            try:
                check_backend(name, precision)
                check_graph_detector(detector)
                if not path.exists():
                    export_onnx(in_float32, size, path)
                    if precision == 'int8':
                        quantize_graph(path, calibration(), path)
                graphs[name] = path.read_bytes()
                graph = load_graph(name, graphs[name], precision)
                differences[name] = _difference(in_float32, graph.run, compared, precision)
            except ValueError as error:
                refused[name] = str(error)
                continue
            runs[name] = lambda run=graph.run: run(image.numpy())
    with first_run(detector):
        own(image)
    for run in runs.values():
        for _ in range(WARM_UP):
            run()
    times = times_in_turns(runs, ROUNDS, 'cpu', time.perf_counter)
    ms = dict(sorted(((n, median(t)) for n, t in times.items()), key=lambda item: item[1]))
    first = next(iter(ms))
    stored = None if first == OWN else StoredGraph(first, precision, graphs[first])
    return RuntimeChoice(size, precision, ms, differences, refused, stored)


def _difference(
    detector: nn.Module,
    run: Callable[[np.ndarray], list[np.ndarray]],
    image: np.ndarray,
    precision: str,
) -> float:
    """The relative difference of a graph's worst output from a detector's.

    Raises:
        ValueError: it is more than rounding.
    """
    outputs = zip(RawOutputs(detector)(torch.from_numpy(image)), run(image), strict=True)
    errors = [
        float((torch.from_numpy(got) - want).norm() / want.norm().clamp(min=1e-12))
        for want, got in outputs
    ]
    wrong = [error for error in errors if not error <= MOST_DIFFERENCE[precision]]
    if wrong:  # NaN counts as wrong, too
        raise ValueError(f'its outputs differ from float32 by {max(wrong):.2g}')
    return max(errors)
