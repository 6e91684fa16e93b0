"""Deployed checkpoints."""

import argparse

import torch
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.runner import Runner
from torch import nn

from ..comfort.data.own_data import use_data
from ..deploy import switch_to_deploy
from ..deploy.precision import check_precision, set_precision
from ..deploy.quantization import set_int8
from ..kernels import Plan, first_run, planned_convs
from ..trace.examples import check_reads_images, detect
from ..utils.announce import announce
from ..utils.errors import UserError
from ..utils.files import check_writable_file, save_whole
from ..utils.image_channels import image_channels
from ..version import __version__
from . import checkpoint, configs, preflight
from . import sensitivity as quantizing
from .calibration_images import calibration_batches
from .safe_globals import load_weights_only

# Where a deployed checkpoint keeps its plan; marks it as one.
PLAN = 'hetconv_plan'
PRECISION = 'hetconv_precision'
INT8 = 'hetconv_int8'  # levels by layer, see kernels/weights.py
# Which layers there are and what they are called; raised when that changes.
FORM = 'hetconv_form'
FORM_VERSION = 2


def deploy(args: argparse.Namespace, tell_plan: bool = True) -> None:
    """What ``tools/deploy.py`` does with its arguments.

    Args:
        tell_plan: print the kernels that --tune has chosen.

    Raises:
        UserError: a mistake in the command line, the config or the
            checkpoint. The output file is not touched then.
    """
    out = check_writable_file(args.out, '--out')
    cfg, model, content = build(args)
    if args.tune:
        try:
            check_reads_images(model)
        except ValueError as error:
            raise UserError(f'--tune: {error}') from error
    precision = precision_of(content, args)
    model = deploy_model(model, content, args.checkpoint, precision)
    levels = content.get(INT8)
    if precision == 'int8' and levels is None:
        batches = calibration_batches(cfg, args.calib, args.data_root, args.seed)
        levels = quantizing.quantize_on_images(model, cfg, batches, args.keep, args.eval)
    plan = plan_of(model)
    if args.tune:
        # Heads too, and what they do with the boxes.
        with first_run(model):
            detect(model, torch.zeros(1, image_channels(model), *args.tune))
        if tell_plan:
            announce(str(plan))
    meta = dict(content.get('meta') or {})
    meta['mmdet_hetconv_version'] = __version__
    state = {k: v.cpu().clone() for k, v in model.state_dict().items()}
    stored = {'state_dict': state, 'meta': meta, PLAN: plan.state_dict(), PRECISION: precision}
    stored[FORM] = FORM_VERSION
    save_whole(stored if levels is None else {**stored, INT8: levels}, out)
    announce(f'{out} written: {len(planned_convs(model))} convolutions')


def precision_of(content: dict, args: argparse.Namespace) -> str:
    """What a deployed checkpoint computes in, or what is asked for.

    Raises:
        UserError: these are two.
    """
    if PLAN not in content:
        return args.precision or 'fp32'
    stored = content.get(PRECISION, 'fp32')
    if args.precision not in (None, stored):
        raise UserError(
            f'--precision {args.precision}: checkpoint {args.checkpoint} is a deployed '
            f'one of {stored}; deploy the trained one'
        )
    return stored


def form_of(content: dict, deploy: bool) -> str:
    """What a checkpoint's detector computes with, in words."""
    return f'deployed ({content.get(PRECISION, "fp32")})' if deploy else 'trained form (fp32)'


def deploy_model(model: nn.Module, content: dict, path: str, precision: str = 'fp32') -> nn.Module:
    """The inference form of a model with a checkpoint's weights.

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
        checkpoint.load_weights(model, content, path)
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


def deploy_runner(runner: Runner, content: dict, args: argparse.Namespace) -> None:
    """Exchange the layers of a runner that is about to test by their inference form.

    Raises:
        UserError: weights that are not the model's; a precision that the
            machine does not have, or that is not the checkpoint's.
    """
    model = checkpoint.unwrap(runner.model)
    precision = precision_of(content, args)
    deploy_model(model, content, args.checkpoint, precision)
    if precision == 'int8' and INT8 not in content:
        batches = calibration_batches(runner.cfg, args.calib)
        quantizing.quantize_on_images(model, runner.cfg, batches)


def check_not_deployed(content: dict, path: str) -> None:
    """Refuse a deployed checkpoint where a trained one is expected."""
    if PLAN in content:
        raise UserError(f'checkpoint {path} is a deployed one: add --deploy')


def plan_of(model: nn.Module) -> Plan:
    """The plan that a deployed model's convolutions share."""
    convs = planned_convs(model)
    return convs[0].plan if convs else Plan()


def build(args: argparse.Namespace) -> tuple[Config, nn.Module, dict]:
    """A config, its detector in eval mode, and a checkpoint's content."""
    load_weights_only()
    register_all_modules(init_default_scope=True)
    cfg = configs.read_config(args.config)
    configs.merge_options(cfg, args.cfg_options)
    content = checkpoint.read_checkpoint(args.checkpoint)
    if args.data_root and use_data(args.data_root, [cfg], content):
        args.data_root = None  # the config now names its images
    with preflight.explained_build(cfg):
        model = MODELS.build(cfg.model)
    preflight.check_model(model, cfg)
    return cfg, model.eval(), content
