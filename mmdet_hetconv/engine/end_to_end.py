"""Detectors as one graph from an image to boxes: written, checked, evaluated."""

import argparse
import copy
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import torch
from mmdet.apis import inference_detector
from mmdet.structures.bbox import bbox_overlaps
from mmengine.config import Config
from mmengine.runner import Runner
from torch import nn

from ..deploy.backends import check_backend, load_graph
from ..deploy.decoding import Decoding
from ..deploy.end_to_end import Preparation, export_decoding, join, preparation, read_classes
from ..deploy.graph_detector import EndToEndDetector
from ..deploy.graph_script import script_of
from ..deploy.onnx import RawOutputs
from ..utils.errors import UserError
from ..utils.image_channels import image_channels
from ..utils.suggestion import did_you_mean_file
from .calibration_images import test_pipeline
from .files import write_whole

SUFFIX = '.onnx'  # of a file that tools/test.py evaluates
# The image that a file is checked on: a smooth one of so many random values,
# of which rounding while resizing changes little.
COARSE = (9, 12)
CHECKED = (345, 460)  # height and width
# Two detections are one: by IoU and by difference of scores.
SAME_BOX = 0.9
SAME_SCORE = 0.02
LEAST_SAME = 0.95


def check_end_to_end(cfg: Config, model: nn.Module) -> Preparation:
    """What is done to an image.

    Raises:
        ValueError: pipeline, dense head or decoding are not common ones.
    """
    RawOutputs(model)
    Decoding(model)
    return preparation(test_pipeline(cfg), model)


def export_end_to_end(
    prepare: Preparation,
    model: nn.Module,
    classes: Sequence[str],
    size: tuple[int, int],
    path: Path,
) -> None:
    """Put preparation and decoding around the graph in `path`, in place."""
    with TemporaryDirectory() as folder:
        decoding = Path(folder) / 'decoding.onnx'
        export_decoding(model, size, decoding)
        join(prepare, path, decoding, path, classes)


def check_file(cfg: Config, model: nn.Module, path: Path) -> str:
    """Compare a file's detections in onnxruntime with the detector's; in words.

    Raises:
        UserError: they differ.
    """
    channels = image_channels(model)
    values = np.random.default_rng(0).random((*COARSE, channels), dtype=np.float32)
    image = cv2.resize(values, CHECKED[::-1], interpolation=cv2.INTER_CUBIC)
    image = (image.clip(0, 1) * 255).astype(np.uint8)
    model.cfg = copy.deepcopy(cfg)  # of which it changes the pipeline
    wanted = inference_detector(model, image).pred_instances
    found = load_graph('onnxruntime', path, 'fp32').run(image.reshape(*CHECKED, channels))
    boxes, scores, labels = map(torch.from_numpy, found)
    if not len(wanted):
        return f'as torch: {len(boxes)} detections in a random image'
    same = bbox_overlaps(wanted.bboxes, boxes) > SAME_BOX
    same &= (wanted.scores[:, None] - scores).abs() < SAME_SCORE
    same &= wanted.labels[:, None] == labels
    share = same.any(1).float().mean().item() if len(boxes) else 0.0
    if share < LEAST_SAME or len(boxes) > len(wanted) / LEAST_SAME:
        raise UserError(
            f'not written: {share:.0%} of the {len(wanted)} detections of torch in a random '
            f'image are among the {len(boxes)} of the graph'
        )
    return f'{share:.0%} of the {len(wanted)} detections in a random image as torch'


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


def test_exported(runner: Runner, args: argparse.Namespace) -> None:
    """Let a runner that is about to test evaluate a file of this kind.

    Raises:
        UserError: options that belong to checkpoints; a runtime that is not
            installed, or has not that precision.
    """
    if args.deploy or args.tta or args.precision == 'int8':
        raise UserError(
            f'{args.checkpoint} is a graph as it is: --deploy, --tta and --precision int8 '
            'are for checkpoints'
        )
    backend = 'onnxruntime' if args.backend == 'torch' else args.backend
    precision = args.precision or 'fp32'
    try:
        check_backend(backend, precision)
        prepare = preparation(test_pipeline(runner.cfg), runner.model)
    except ValueError as error:
        raise UserError(f'{args.checkpoint}: {error}') from error
    graph = load_graph(backend, args.checkpoint, precision)
    runner.model = EndToEndDetector(graph, prepare.color_type)
