"""Detectors as one graph from an image to boxes: written, checked, evaluated."""

import argparse
import copy
from collections.abc import Sequence
from importlib.util import find_spec
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

from ..datasets.config_parts import class_names, leaf_datasets
from ..deploy.backends import check_backend, load_graph
from ..deploy.decoding import Decoding
from ..deploy.end_to_end import export_decoding, join, preparation, read_classes
from ..deploy.graph_detector import EndToEndDetector
from ..deploy.graph_script import script_of
from ..deploy.onnx import RawOutputs
from ..utils.errors import UserError
from ..utils.image_channels import image_channels
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


def check_end_to_end(cfg: Config, model: nn.Module) -> None:
    """Raise ValueError unless pipeline, dense head and decoding are common ones."""
    preparation(test_pipeline(cfg), model)
    RawOutputs(model)
    Decoding(model)


def export_end_to_end(
    cfg: Config, model: nn.Module, content: dict, size: tuple[int, int], path: Path
) -> None:
    """Put preparation and decoding around the graph in `path`, in place.

    Raises:
        ValueError: see :func:`check_end_to_end`.
        UserError: neither checkpoint nor config names the classes.
    """
    prepare = preparation(test_pipeline(cfg), model)
    with TemporaryDirectory() as folder:
        decoding = Path(folder) / 'decoding.onnx'
        export_decoding(model, size, decoding)
        join(prepare, path, decoding, path, classes_of(cfg, content))


def classes_of(cfg: Config, content: dict) -> tuple[str, ...]:
    """What a checkpoint was trained on, else what the test data of a config has.

    Raises:
        UserError: neither names them.
    """
    trained = (content.get('meta') or {}).get('dataset_meta') or {}
    key, leaf = next(leaf_datasets(cfg.test_dataloader.dataset, 'test_dataloader.dataset'))
    classes = trained.get('classes') or class_names(leaf, key)
    if not classes:
        raise UserError(f'neither the checkpoint nor {key} of the config names the classes')
    return tuple(map(str, classes))


def check_file(cfg: Config, model: nn.Module, path: Path) -> str:
    """Compare a file's detections with the detector's; in words.

    Raises:
        UserError: they differ.
    """
    if find_spec('onnxruntime') is None:
        return 'not checked (onnxruntime is not installed)'
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


def write_script(out: Path, cfg: Config, model: nn.Module, classes: Sequence[str]) -> Path:
    """Write the script that runs the file `out` beside it."""
    script = out.with_name(f'{out.stem}_detect.py')
    color_type = preparation(test_pipeline(cfg), model).color_type
    write_whole(script, script_of(out.name, script.name, classes, color_type).encode())
    return script


def read_exported(path: str) -> dict:
    """What stands for a checkpoint's content, of a file of this kind.

    Raises:
        UserError: there is no such file, or it is of another kind.
    """
    if not Path(path).is_file():
        raise UserError(f'checkpoint {path} does not exist')
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
