"""A trained detector becomes its inference form, in a checkpoint of its own."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.runner import Runner
from torch import nn

from ..analysis.config import input_shape
from ..deploy import switch_to_deploy
from ..deploy.precision import check_precision, set_precision
from ..deploy.quantization import set_int8
from ..export.fastest import StoredGraph, choose_runtime
from ..kernels import Plan, first_run, planned_convs
from ..trace.examples import check_reads_images, detect
from ..utils.announce import announce
from ..utils.errors import UserError
from ..utils.files import check_writable_file, save_whole
from ..utils.image_channels import image_channels
from ..version import __version__
from .calibration_images import TO_QUANTIZE, Images, calibration_batches, network_inputs
from .checkpoints import checkpoint as checkpoints
from .config.detector import read_detector
from .sensitivity import levels_of, quantize_on_images

# Where a deployed checkpoint keeps its plan; marks it as one.
PLAN = 'hetconv_plan'
PRECISION = 'hetconv_precision'
INT8 = 'hetconv_int8'  # levels by layer, see kernels/weights.py
GRAPH = 'hetconv_graph'  # of another runtime, where that is the fastest
# Which layers there are and what they are called; raised when that changes.
FORM = 'hetconv_form'
FORM_VERSION = 2


@dataclass
class Deployed:
    """The inference form of a detector.

    Attributes:
        cfg: of the detector.
        model: in that form.
        precision: in which its convolutions compute, 'fp32', 'bf16' or 'int8'.
        levels: of int8 by layer, as :func:`levels_of` reads them; None without int8.
        meta: of the checkpoint that it is made of.
        graph: computes backbone, neck and dense head in a runtime that is faster than
            the model's own layers; else None.
    """

    cfg: Config
    model: nn.Module
    precision: str
    levels: dict[str, dict[str, Any] | None] | None
    meta: dict[str, Any]
    graph: StoredGraph | None = None

    @property
    def plan(self) -> Plan:
        """Which kernel computes each convolution."""
        return plan_of(self.model)

    def content(self) -> dict[str, Any]:
        """The content of its checkpoint file."""
        stored: dict[str, Any] = {
            'state_dict': {k: v.cpu().clone() for k, v in self.model.state_dict().items()},
            'meta': self.meta | dict(mmdet_hetconv_version=__version__, cfg=self.cfg.pretty_text),
            PLAN: self.plan.state_dict(),
            PRECISION: self.precision,
            FORM: FORM_VERSION,
        }
        if self.levels is not None:
            stored[INT8] = self.levels
        if self.graph is not None:
            stored[GRAPH] = self.graph.state_dict()
        return stored


def deploy(
    config: str | Config,
    checkpoint: str,
    out: str | Path,
    *,
    precision: str | None = None,
    images: Images = TO_QUANTIZE,
    keep: Sequence[str] = (),
    tune: Sequence[int] | None = None,
    evaluates: bool = True,
    backend: str = 'torch',
) -> Deployed:
    """Write the deployed checkpoint of a trained detector.

    Args:
        config: of the detector, a file or at hand.
        checkpoint: file of the trained detector, or of a deployed one.
        out: the file to write; it is not touched if anything fails.
        precision, images, keep, tune, evaluates, backend: as for :func:`deploy_detector`.

    Raises:
        UserError: a mistake in the config, the checkpoint or the images.
    """
    out = check_writable_file(out, '--out')
    cfg, model, content = read_detector(config, checkpoint)
    deployed = deploy_detector(
        cfg,
        model,
        content,
        checkpoint,
        precision=precision,
        images=images,
        keep=keep,
        tune=tune,
        evaluates=evaluates,
        backend=backend,
    )
    if tune:
        announce(str(deployed.plan))
    save_whole(deployed.content(), out)
    announce(f'{out} written: {len(planned_convs(deployed.model))} convolutions')
    return deployed


def deploy_detector(
    cfg: Config,
    model: nn.Module,
    content: dict,
    path: str,
    *,
    precision: str | None = None,
    images: Images = TO_QUANTIZE,
    keep: Sequence[str] = (),
    tune: Sequence[int] | None = None,
    evaluates: bool = False,
    backend: str = 'torch',
) -> Deployed:
    """Switch a detector in memory to its inference form.

    Args:
        cfg: of the detector.
        model: of any weights; it becomes the inference form.
        content: of a checkpoint, trained or deployed.
        path: of that checkpoint, for messages.
        precision: 'fp32', 'bf16' or 'int8'; None takes what a deployed checkpoint has,
            else fp32.
        images: whose feature maps set the levels of int8.
        keep: layers that do not compute in int8, with * and ? as in file names.
        tune: height and width of an image for which the kernels are chosen now.
        evaluates: on the test set before and after quantizing, if it has annotations.
        backend: 'torch' for the project's own kernels; 'auto' for the fastest of them,
            onnxruntime and OpenVINO, timed at the size of `tune` or the config's test size.

    Raises:
        UserError: weights that are not the model's; a precision that the machine does
            not have, or that is not the deployed checkpoint's; 'auto' asked of a
            deployed checkpoint that is not fp32.
    """
    if tune:
        try:
            check_reads_images(model)
        except ValueError as error:
            raise UserError(f'--tune: {error}') from error
    precision = precision_of(content, path, precision)
    if backend == 'auto' and keep:
        raise UserError(
            f'--keep {" ".join(keep)}: --backend auto may choose a graph, which onnxruntime '
            'quantizes whole'
        )
    in_float32 = None
    if backend == 'auto' and precision != 'fp32':
        if PLAN in content:
            raise UserError(
                f'--backend auto: checkpoint {path} is a deployed one of {precision}; '
                'deploy the trained one'
            )
        in_float32 = deploy_model(copy.deepcopy(model), content, path)
    model = deploy_model(model, content, path, precision)
    levels = content.get(INT8)
    batches = calibration_batches(cfg, images) if precision == 'int8' and levels is None else ()
    if batches:
        levels = quantize_on_images(model, cfg, batches, keep, evaluates)
    if tune:
        # Heads too, and what they do with the boxes.
        with first_run(model):
            detect(model, torch.zeros(1, image_channels(model), *tune))
    graph = stored_graph(content, path)
    if backend == 'auto':
        height, width = tune or input_shape(cfg)
        choice = choose_runtime(
            model,
            in_float32 or model,
            (height, width),
            precision,
            lambda: network_inputs(model, batches),
        )
        announce(str(choice))
        graph = choice.graph
    return Deployed(cfg, model, precision, levels, dict(content.get('meta') or {}), graph)


def stored_graph(content: dict, path: str) -> StoredGraph | None:
    """The graph that a deployed checkpoint keeps.

    Raises:
        UserError: it is damaged, or of another version.
    """
    if GRAPH not in content:
        return None
    try:
        return StoredGraph.from_state_dict(content[GRAPH])
    except ValueError as error:
        raise UserError(f'checkpoint {path}: its graph: {error}') from error


def serve_stored_graph(model: nn.Module, content: dict, path: str) -> None:
    """Let the graph of a deployed checkpoint, if it keeps one, compute the model's layers.

    Args:
        model: in inference form, changed in place.

    Raises:
        UserError: as :func:`stored_graph`; its runtime is not installed.
    """
    graph = stored_graph(content, path)
    if graph is not None:
        try:
            graph.serve(model)
        except ValueError as error:
            raise UserError(f'checkpoint {path}: its graph: {error}') from error


def precision_of(content: dict, path: str, asked: str | None = None) -> str:
    """The precision of a deployed checkpoint, or the one that is asked of a trained one.

    Raises:
        UserError: another precision is asked of a deployed one.
    """
    if PLAN not in content:
        return asked or 'fp32'
    stored = content.get(PRECISION, 'fp32')
    if asked not in (None, stored):
        raise UserError(
            f'--precision {asked}: checkpoint {path} is a deployed '
            f'one of {stored}; deploy the trained one'
        )
    return stored


def form_of(content: dict, deploy: bool) -> str:
    """The form and precision of a checkpoint's detector, in words."""
    if not deploy:
        return 'trained form (fp32)'
    graph = content.get(GRAPH)
    runtime = f' in {graph["backend"]}' if graph else ''
    return f'deployed ({content.get(PRECISION, "fp32")}){runtime}'


def deploy_model(model: nn.Module, content: dict, path: str, precision: str = 'fp32') -> nn.Module:
    """Load a checkpoint's weights and switch the model to its inference form.

    Args:
        content (dict): of a checkpoint, deployed or not. One that is has a
            precision of its own.
        precision (str): of one that is not; int8 is the form that is to be
            quantized.

    Raises:
        UserError: the weights are not the model's; a form of another version; a
            precision that the machine does not have.
    """
    plan = Plan()
    if PLAN not in content:
        checkpoints.load_weights(model, content, path)
        try:
            check_precision(precision, torch.device('cpu'))
            model = switch_to_deploy(model, plan)
            set_precision(model, precision)
            return model
        except ValueError as error:
            raise UserError(str(error)) from error
    if content.get(FORM) != FORM_VERSION:
        raise UserError(
            f'checkpoint {path} has an inference form of another version of mmdet_hetconv; '
            'deploy the trained checkpoint again'
        )
    model = switch_to_deploy(model, plan)
    set_precision(model, content.get(PRECISION, 'fp32'))
    checkpoints.load_weights(model, content, path)
    try:
        plan.load_state_dict(content[PLAN])
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f'checkpoint {path}: its plan: {error}') from error
    if INT8 in content:
        try:
            set_int8(model, levels_of(content[INT8]))
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise UserError(f'checkpoint {path}: its levels of int8: {error}') from error
    return model


def deploy_runner(
    runner: Runner,
    content: dict,
    path: str,
    *,
    precision: str | None = None,
    images: Images = TO_QUANTIZE,
) -> None:
    """Switch the model of a runner to its inference form before it tests.

    Args:
        content, path, precision, images: as for :func:`deploy_detector`.

    Raises:
        UserError: as :func:`deploy_detector`.
    """
    model = checkpoints.unwrap(runner.model)
    precision = precision_of(content, path, precision)
    deploy_model(model, content, path, precision)
    if precision == 'int8' and INT8 not in content:
        quantize_on_images(model, runner.cfg, calibration_batches(runner.cfg, images))
    serve_stored_graph(model, content, path)


def check_not_deployed(content: dict, path: str) -> None:
    """Refuse a deployed checkpoint where a trained one is expected."""
    if PLAN in content:
        raise UserError(f'checkpoint {path} is a deployed one: add --deploy')


def plan_of(model: nn.Module) -> Plan:
    """The plan that a deployed model's convolutions share."""
    convs = planned_convs(model)
    return convs[0].plan if convs else Plan()
