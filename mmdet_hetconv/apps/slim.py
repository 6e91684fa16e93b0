"""From a trained dense detector to a faster one: all steps, one folder.

Each step leaves a file, written whole; a step whose file is there is not done again.
"""

import argparse
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from mmcv.cnn import ConvModule
from mmdet.utils import register_all_modules
from mmengine.config import Config
from torch import nn

from ..analysis.config import build_detector, input_shape
from ..convert.convert_model import matches
from ..datasets.config_parts import leaf_datasets, read_infos
from ..engine import checkpoint, configs, converting, deploying
from ..engine.budgeting import converted
from ..engine.calibration_images import choose_images, use_data
from ..engine.evaluating import has_annotations
from ..engine.files import check_writable, write_whole
from ..engine.safe_globals import load_weights_only
from ..layers.replace import find_convs
from ..layers.shape import why_not_heterogeneous
from ..utils.announce import announce
from ..utils.errors import UserError
from .compare import PAGE, compare
from .layers_picture import draw_layers

# Heads of dense detectors, where convolutions that nothing follows predict.
HEADS = ('bbox_head', 'rpn_head')
# Of an RPN, whose ReLU is a function.
HIDDEN = 'rpn_conv'
LEAST_P = 2
CONVERTED = 'converted.pth'
TEMPLATES = ('eligible.py', 'converted.py')
LATER = ('dense_deployed.pth', 'deployed.pth', PAGE)  # what is made of these
NOTE = 'slim.json'  # of what all that is the work
SHOWN = 12  # images on the page
ROUNDS = 11  # of timing


def slim(args: argparse.Namespace) -> None:
    """What ``tools/slim.py`` does with its arguments.

    Raises:
        UserError: a mistake in the command line, the config, the checkpoint or the
            images; the folder holds the work of other arguments.
    """
    load_weights_only()
    register_all_modules(init_default_scope=True)
    out = Path(args.out).expanduser().resolve()
    check_writable(out, '--out')
    cfg = configs.read_config(args.config)
    configs.merge_options(cfg, args.cfg_options)
    content = checkpoint.read_weights(args.checkpoint)
    root = args.data_root
    if root and use_data(root, [cfg], content):
        root = None  # the config now names its images
    configs.use_own_hooks(cfg)
    _check_arguments(args, cfg, out)

    def write_config(name: str, written: Config) -> str:
        write_whole(out / name, written.pretty_text.encode())
        return str(out / name)

    dense = write_config('dense.py', cfg)
    layers = eligible_layers(build_detector(cfg.model), args.p or LEAST_P, args.exclude)
    eligible, result = (out / name for name in TEMPLATES)
    template = result if args.p else eligible
    wanted = converted(cfg, cfg.model, layers, args.arrangement)
    _step(template, lambda: write_config(template.name, wanted))
    files = argparse.Namespace(checkpoint=args.checkpoint, data_root=root, cfg_options=None)
    images = argparse.Namespace(calib=args.calib, seed=args.seed, eval=True, keep=())

    def deployed(config: str, weights: str, name: str) -> Path:
        words = argparse.Namespace(
            **(vars(files) | vars(images) | dict(config=config, checkpoint=weights)),
            out=str(out / name),
            precision=args.precision,
            tune=input_shape(cfg),
        )
        return _step(out / name, lambda: deploying.deploy(words, tell_plan=False))

    weights = _step(
        out / CONVERTED,
        lambda: converting.convert(
            argparse.Namespace(
                **vars(files),
                **vars(images),
                dense_config=dense,
                het_config=str(template),
                out=str(out / CONVERTED),
                method='lstsq',
                permute=args.permute or args.arrangement == 'permuted',
                distil=args.distil,
                target_macs=args.target_macs,
                target_ms=args.target_ms,
            )
        ),
    )
    a = deployed(dense, args.checkpoint, 'dense_deployed.pth')
    b = deployed(str(result), str(weights), 'deployed.pth')
    _write_training(out, result, weights, args.checkpoint)
    _step(out / PAGE, lambda: _write_page(out, cfg, root, a, b, weights, args.seed))
    announce(
        f'{out / PAGE} is the report; to train it on: python tools/train.py {out / "train_on.py"}'
    )


def eligible_layers(model: nn.Module, p: int, exclude: list[str]) -> dict[str, int]:
    """The convolutions that can have this p and predict nothing, by name.

    Raises:
        UserError: there are none.
    """
    modules = dict(model.named_modules())
    found = {}
    for name, conv in find_convs(model).items():
        head, _, rest = name.partition('.')
        parent = modules[name.rpartition('.')[0]]
        predicts = head in HEADS and not isinstance(parent, ConvModule) and rest != HIDDEN
        if type(conv) is not nn.Conv2d or predicts or matches(name, *exclude):
            continue
        if why_not_heterogeneous(conv, p) is None:
            found[name] = p
    if not found:
        raise UserError(f'p={p} fits none of the convolutions that are not excluded')
    return found


def _check_arguments(args: argparse.Namespace, cfg: Config, out: Path) -> None:
    """Note what the work is of, or refuse another than the work that is there."""
    mine = {key: value for key, value in vars(args).items() if key != 'out'}
    mine = json.loads(json.dumps(mine))
    # The same names may hold something else than they did.
    mine['config_sha256'] = _digest(cfg.pretty_text.encode())
    if Path(args.checkpoint).is_file():
        mine['checkpoint_sha256'] = _digest(Path(args.checkpoint).read_bytes())
    note = out / NOTE
    if not (note.exists() and (out / CONVERTED).exists()):
        for name in (*TEMPLATES, *LATER):
            (out / name).unlink(missing_ok=True)
        write_whole(note, json.dumps(mine, indent=1).encode())
        return
    theirs = json.loads(note.read_text())
    for key, value in mine.items():
        if theirs.get(key) != value:
            raise UserError(
                f'--out {out} holds the work of {key}={theirs.get(key)}, not of '
                f'{key}={value}: name another folder'
            )


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _step(path: Path, work: Callable[[], object]) -> Path:
    """Do a step whose file is missing."""
    if path.exists():
        announce(f'{path} is there, its step is not done again')
    else:
        work()
    return path


def _write_training(out: Path, config: Path, weights: Path, dense_weights: str) -> None:
    """A config that trains on, with the dense detector beside the labels."""
    text = (
        f'# python tools/train.py {out / "train_on.py"}\n'
        f'_base_ = {config.name!r}\n'
        f'load_from = {str(weights)!r}\n'
        'custom_hooks = [\n'
        f"    dict(type='TeacherHook', config={str(out / 'dense.py')!r},\n"
        f'         checkpoint={_address(dense_weights)!r},\n'
        # A distilled detector's distance is small beside the other losses.
        '         weight=10, norm_eval=True)\n'
        ']\n'
    )
    write_whole(out / 'train_on.py', text.encode())


def _address(weights: str) -> str:
    """A file from wherever a training is started, or a URL."""
    return str(Path(weights).resolve()) if Path(weights).exists() else weights


def _write_page(
    out: Path, cfg: Config, root: str | None, a: Path, b: Path, weights: Path, seed: int
) -> None:
    """The report: what compare.py writes of both deployed detectors, and more."""
    images = out / 'images'
    shutil.rmtree(images, ignore_errors=True)
    images.mkdir()
    for number, path in enumerate(_shown_images(cfg, root, seed)):
        shutil.copy(path, images / f'{number:02}_{Path(path).name}')
    conversion = torch.load(weights, weights_only=True)['meta']['conversion']
    layers = Config.fromfile(out / 'converted.py').model.layers
    compare(
        argparse.Namespace(
            a=(str(out / 'dense.py'), str(a)),
            b=(str(out / 'converted.py'), str(b)),
            images=str(images),
            out=str(out),
            ann_file=None,
            score_thr=0.3,
            max_images=SHOWN,
            rounds=ROUNDS,
            deploy=True,
        ),
        metrics=conversion['metrics'],
        picture=draw_layers(layers, conversion['relative_error']),
        command=f'python tools/train.py {out / "train_on.py"}',
    )


def _shown_images(cfg: Config, root: str | None, seed: int) -> list[str]:
    """Test images, or some of those that it was calibrated on."""
    if root or not has_annotations(cfg):
        return choose_images(root, cfg, SHOWN, seed)
    _, leaf = next(leaf_datasets(cfg.test_dataloader.dataset, ''))
    infos = read_infos(leaf)
    step = max(1, len(infos) // SHOWN)
    return [info['img_path'] for info in infos[::step]][:SHOWN]
