"""Deployed checkpoints, and evaluation by other means than the layers."""

import argparse
from importlib.util import find_spec
from pathlib import Path

import torch
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from torch import nn

from ..analysis.config import input_shape
from ..deploy import switch_to_deploy
from ..deploy.onnx import check_single_stage, export_onnx, graph_error, run_by_onnxruntime
from ..deploy.precision import check_precision, set_precision
from ..deploy.quantization import set_int8
from ..deploy.whole_run import detect
from ..kernels import Plan, planned_convs
from ..utils.announce import announce
from ..utils.errors import UserError
from ..utils.image_channels import image_channels
from ..version import __version__
from . import checkpoint, configs, preflight, quantizing
from .calibration_images import use_data
from .files import check_writable_file, save_whole, unfinished
from .safe_globals import load_weights_only

# Where a deployed checkpoint keeps its plan; marks it as one.
PLAN = 'hetconv_plan'
PRECISION = 'hetconv_precision'
INT8 = 'hetconv_int8'  # levels by layer, see kernels/weights.py
# A graph is checked on an image that is larger by OTHER pixels.
OTHER = 64
MOST_ERROR = 1e-3  # relative, of float32 summed in another order


def deploy(args: argparse.Namespace) -> None:
    """What ``tools/deploy.py`` does with its arguments.

    Raises:
        UserError: a mistake in the command line, the config or the
            checkpoint. The output file is not touched then.
    """
    out = check_writable_file(args.out, '--out')
    cfg, model, content = _build(args)
    precision = content.get(PRECISION, args.precision)
    model = deploy_model(model, content, args.checkpoint, precision)
    levels = content.get(INT8)
    if precision == 'int8' and levels is None:
        levels = quantizing.quantize_on_images(model, cfg, args)
    plan = plan_of(model)
    if args.tune:
        # Heads too, and what they do with the boxes.
        detect(model, torch.zeros(1, image_channels(model), *args.tune))
        announce(str(plan))
    meta = dict(content.get('meta') or {})
    meta['mmdet_hetconv_version'] = __version__
    state = {k: v.cpu().clone() for k, v in model.state_dict().items()}
    stored = {'state_dict': state, 'meta': meta, PLAN: plan.state_dict(), PRECISION: precision}
    save_whole(stored if levels is None else {**stored, INT8: levels}, out)
    announce(f'{out} written: {len(planned_convs(model))} convolutions')


def export(args: argparse.Namespace) -> None:
    """What ``tools/export_onnx.py`` does with its arguments.

    The graph is compared with torch on an image of another size, where
    onnxruntime is installed, and appears under its name afterwards.

    Raises:
        UserError: as :func:`deploy`; a detector without a dense head; a
            package for ONNX is not installed; the graph's outputs differ.
    """
    _check_packages('onnx', 'onnxscript')
    out = check_writable_file(args.out, '--out')
    cfg, model, content = _build(args)
    if INT8 in content:
        raise UserError(f'checkpoint {args.checkpoint} computes in int8, which ONNX does not get')
    model = deploy_model(model, content, args.checkpoint)
    part = unfinished(out)
    try:
        size = args.size or input_shape(cfg)
        names = export_onnx(model, size, part)
        told = _check_graph(model, size, part, out)
        part.replace(out)
    except ValueError as error:
        raise UserError(f'{args.config}: {error}') from error
    finally:
        part.unlink(missing_ok=True)
    announce(f'{out} written, {told}, outputs: {", ".join(names)}')


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


def deploy_model(model: nn.Module, content: dict, path: str, precision: str = 'fp32') -> nn.Module:
    """The inference form of a model with a checkpoint's weights.

    Args:
        content (dict): of a checkpoint, deployed or not. One that is has a
            precision of its own.
        precision (str): of one that is not; int8 is the form that is to be
            quantized.

    Raises:
        UserError: the weights are not the model's; a precision that the
            machine does not have.
    """
    plan = Plan()
    if PLAN not in content:
        checkpoint.load_weights(model, content, path)
        try:
            check_precision(precision, torch.device('cpu'))
            model = switch_to_deploy(model, plan)
            set_precision(model, precision)
            return model
        except ValueError as error:
            raise UserError(str(error)) from error
    model = switch_to_deploy(model, plan)
    set_precision(model, content.get(PRECISION, 'fp32'))
    checkpoint.load_weights(model, content, path)
    try:
        plan.load_state_dict(content[PLAN])
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f'checkpoint {path}: its plan: {error}') from error
    if INT8 in content:
        try:
            set_int8(model, quantizing.levels_of(content[INT8]))
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise UserError(f'checkpoint {path}: its levels of int8: {error}') from error
    return model


def deploy_runner(runner, content: dict, args) -> None:
    """Exchange the layers of a runner that is about to test.

    Raises:
        UserError: a deployed checkpoint without --deploy; weights that are
            not the model's; a detector that onnxruntime cannot serve, or
            its packages are not installed.
    """
    if args.backend == 'onnxruntime':
        _check_packages('onnx', 'onnxscript', 'onnxruntime')
    model = checkpoint.unwrap(runner.model)
    deploy_model(model, content, args.checkpoint)
    if args.backend == 'onnxruntime':
        path = Path(runner.work_dir) / f'{Path(args.checkpoint).stem}.onnx'
        path.parent.mkdir(parents=True, exist_ok=True)
        model.cpu()
        try:
            check_single_stage(model)
            export_onnx(model, input_shape(runner.cfg), path)
            run_by_onnxruntime(model, path)
        except ValueError as error:
            raise UserError(f'--backend onnxruntime: {error}') from error
        announce(f'{path} written, onnxruntime evaluates it')


def check_not_deployed(content: dict, path: str) -> None:
    """Refuse a deployed checkpoint where a trained one is expected."""
    if PLAN in content:
        raise UserError(f'checkpoint {path} is a deployed one: add --deploy')


def plan_of(model: nn.Module) -> Plan:
    """The plan that a deployed model's convolutions share."""
    convs = planned_convs(model)
    return convs[0].plan if convs else Plan()


def _build(args) -> tuple[Config, nn.Module, dict]:
    load_weights_only()
    register_all_modules(init_default_scope=True)
    cfg = configs.read_config(args.config)
    configs.merge_options(cfg, args.cfg_options)
    content = checkpoint.read_checkpoint(args.checkpoint)
    root = getattr(args, 'data_root', None)
    if root and use_data(root, [cfg], content):
        args.data_root = None  # the config now names its images
    with preflight.explained_build(cfg):
        model = MODELS.build(cfg.model)
    preflight.check_model(model, cfg)
    return cfg, model.eval(), content


def _check_packages(*names: str) -> None:
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        raise UserError(
            f'ONNX needs packages that are not installed: pip install {" ".join(missing)}'
        )
