"""Detectors as one graph from an image to boxes: written, checked, evaluated."""

import copy
import shutil
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
import torch
from mmcv.transforms import Compose
from mmdet.structures.bbox import bbox_overlaps
from mmengine.config import Config
from mmengine.runner import Runner
from torch import Tensor, nn

from ..export.decoding import Decoding
from ..export.end_to_end import (
    Preparation,
    export_decoding,
    join,
    preparation,
    read_classes,
    save_preparation,
)
from ..export.graph_detector import EndToEndDetector, run_by_graph
from ..export.graph_script import script_of
from ..export.onnx import RawOutputs
from ..export.runtimes import BACKENDS, check_backend, load_graph
from ..utils.errors import UserError
from ..utils.files import write_whole
from ..utils.suggestion import did_you_mean_file
from .calibration_images import test_pipeline

SUFFIX = '.onnx'  # of a file that tools/test.py evaluates
# The images that a file is checked on: smooth ones of so many random values,
# of which rounding while resizing changes little.
COARSE = 9
CHECKED = ((260, 620), (560, 230), (75, 100))  # heights and widths
# By so many of 255 levels prepared images may differ, in the mean.
MOST_LEVELS = 0.25
# Two detections are one: by IoU and by difference of scores.
SAME_BOX = 0.9
SAME_SCORE = 0.02
# So many of both sides may have no counterpart, or one. OpenVINO rounds a quantized
# network elsewhere when other operators stand in front of it.
MOST_ALONE = 0.05
MOST_ALONE_INT8 = 0.4

# Boxes (n, 4), scores (n,), labels (n,).
Detections = tuple[Tensor, Tensor, Tensor]


def check_end_to_end(cfg: Config, model: nn.Module) -> Preparation:
    """What is done to an image.

    Raises:
        ValueError: pipeline, dense head or decoding are not common ones.
    """
    RawOutputs(model)
    Decoding(model)
    return preparation(test_pipeline(cfg), model)


def export_end_to_end(
    cfg: Config,
    model: nn.Module,
    prepare: Preparation,
    classes: Sequence[str],
    size: tuple[int, int],
    path: Path,
    precision: str,
) -> str:
    """Put preparation and decoding around the graph in `path`, in place.

    Returns:
        What :func:`check_file` says of it.
    """
    with TemporaryDirectory() as folder:
        first, network, last = (Path(folder) / name for name in ('a.onnx', 'b.onnx', 'c.onnx'))
        shutil.copy(path, network)
        save_preparation(prepare, network, first)
        export_decoding(model, size, last)
        join(first, network, last, path, classes)
        quantized = network if precision == 'int8' else None
        return check_file(cfg, model, prepare, path, first, quantized)


def check_file(
    cfg: Config,
    model: nn.Module,
    prepare: Preparation,
    path: Path,
    preparation: Path,
    network: Path | None,
) -> str:
    """Compare a file in each runtime with the detector; in words.

    What it makes of random images is compared with what the test pipeline
    makes of them, and its boxes with mmdet's of the same values.

    Args:
        preparation: its first part.
        network: its layers, where they are not the detector's; they compute
            what mmdet decodes then.

    Raises:
        UserError: they differ.
    """
    told = []
    images = list(_random_images(prepare.channels))
    for backend in BACKENDS:
        if find_spec(backend) is None:
            told.append(f'not run in {backend}, which is not installed')
            continue
        detector: Any = model
        if network is not None:
            detector = copy.deepcopy(model)
            run_by_graph(detector, load_graph(backend, network, 'fp32'))
        first, whole = (load_graph(backend, part, 'fp32') for part in (preparation, path))
        wanted, found = [], []
        for image in images:
            batch = _as_mmdet(cfg, model, image)
            # OpenVINO writes the next outputs into the same memory.
            values = torch.from_numpy(first.run(image)[0].copy())
            _check_prepared(backend, prepare, image, values, batch['inputs'])
            with torch.no_grad():
                (sample,) = detector.predict(values, batch['data_samples'])
            boxes = sample.pred_instances
            wanted.append((boxes.bboxes, boxes.scores, boxes.labels))
            found.append(tuple(torch.from_numpy(x.copy()) for x in whole.run(image)))
        most = MOST_ALONE if network is None else MOST_ALONE_INT8
        told.append(f'{backend}: {_check_same(backend, wanted, found, most)}')
    return ', '.join(told)


def _random_images(channels: int) -> Iterator[np.ndarray]:
    generator = np.random.default_rng(0)
    for height, width in CHECKED:
        values = generator.random((COARSE, COARSE, channels), dtype=np.float32)
        image = cv2.resize(values, (width, height), interpolation=cv2.INTER_CUBIC)
        yield (image.clip(0, 1) * 255).astype(np.uint8).reshape(height, width, channels)


def _as_mmdet(cfg: Config, model: Any, image: np.ndarray) -> dict[str, Any]:
    """What the test pipeline and the data preprocessor make of an image."""
    pipeline = copy.deepcopy(test_pipeline(cfg))
    pipeline[0].type = 'mmdet.LoadImageFromNDArray'
    # mmcv has images of one channel without an axis for it.
    shown = image[..., 0] if image.shape[2] == 1 else image
    packed = Compose(pipeline)(dict(img=shown, img_id=0))
    return model.data_preprocessor({key: [value] for key, value in packed.items()})


def _check_prepared(
    backend: str, prepare: Preparation, image: np.ndarray, found: Tensor, wanted: Tensor
) -> None:
    """cv2 resizes whole numbers in 11 bits, and may round to the next one."""
    same = found.shape == wanted.shape
    if same:
        levels = (found - wanted).abs() * torch.tensor(prepare.std).view(-1, 1, 1)
        same = levels.max() < 1.1 and levels.mean() < MOST_LEVELS
    if not same:
        height, width = image.shape[:2]
        raise UserError(
            f'not written: {backend} makes {tuple(found.shape)} of a random image of {height} x '
            f'{width}, or other values, torch {tuple(wanted.shape)}'
        )


def _check_same(
    backend: str, wanted: list[Detections], found: list[Detections], most: float
) -> str:
    counts = []
    for (boxes, scores, labels), other in zip(wanted, found, strict=True):
        same = bbox_overlaps(boxes, other[0]) > SAME_BOX
        same &= (scores[:, None] - other[1]).abs() < SAME_SCORE
        same &= labels[:, None] == other[2]
        alone = (~same.any(1)).sum() + (~same.any(0)).sum()
        counts.append((int(alone), len(scores), len(other[1])))
    counts.append(tuple(map(sum, zip(*counts))))
    names = [f'one of {height} x {width}' for height, width in CHECKED] + ['all']
    for name, (alone, mine, theirs) in zip(names, counts, strict=True):
        if alone > max(1, most * (mine + theirs)):
            raise UserError(
                f'not written: of {mine} detections of torch and {theirs} of the graph in '
                f'{backend}, {alone} have no counterpart ({name} of {len(CHECKED)} random images)'
            )
    return (
        f'{theirs} detections in {len(CHECKED)} random images, torch {mine}, '
        f'{alone} of both without a counterpart'
    )


def write_script(out: Path, color_type: str, classes: Sequence[str]) -> Path:
    """Write the script that runs the file `out` beside it."""
    script = out.with_name(f'{out.stem}_detect.py')
    write_whole(script, script_of(out.name, script.name, classes, color_type).encode())
    return script


def read_exported(path: str) -> dict:
    """What stands for a checkpoint's content, of a file of this kind.

    Raises:
        UserError: there is no such file, or it is of another kind.
    """
    if not Path(path).is_file():
        raise UserError(f'checkpoint {path} does not exist{did_you_mean_file(path)}')
    try:
        classes = read_classes(path)
    except (ValueError, ImportError) as error:
        raise UserError(f'{path}: {error}') from error
    return dict(meta=dict(dataset_meta=dict(classes=tuple(classes))))


def test_exported(runner: Runner, path: str, backend: str, precision: str) -> None:
    """Let a runner that is about to test evaluate a file of this kind.

    Raises:
        UserError: a runtime that is not installed, or has not that precision.
    """
    backend = 'onnxruntime' if backend == 'torch' else backend
    try:
        check_backend(backend, precision)
        prepare = preparation(test_pipeline(runner.cfg), runner.model)
    except ValueError as error:
        raise UserError(f'{path}: {error}') from error
    graph = load_graph(backend, path, precision)
    runner.model = EndToEndDetector(graph, prepare.color_type)
