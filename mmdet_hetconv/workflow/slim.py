"""From a trained dense detector to a faster one: all steps, one folder.

Each step leaves a file, written whole; a step whose file is there is not done again.
"""

import argparse
import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from mmcv.cnn import ConvModule
from mmdet.utils import register_all_modules
from mmengine.config import Config
from torch import nn

from ..analysis.config import build_detector, input_shape
from ..comfort.data.own_data import use_data
from ..comfort.show.compare import PAGE, compare
from ..comfort.show.layers_picture import draw_layers
from ..comfort.show.side import Side, load_side
from ..convert.convert_model import matches
from ..deploy.precision import check_precision
from ..layers import HetConv2d
from ..layers.replace import find_convs
from ..layers.shape import why_not_heterogeneous
from ..utils.announce import announce
from ..utils.errors import UserError
from ..utils.files import check_writable, save_whole, write_whole
from . import checkpoint, configs
from . import convert as converting
from . import deploy as deploying
from .calibration_images import choose_images
from .config_parts import leaf_datasets, read_infos
from .evaluate import evaluate, has_annotations
from .gain import gain
from .layer_choice import converted
from .safe_globals import load_weights_only
from .train_on import train_on

# Heads of dense detectors, where convolutions that nothing follows predict.
HEADS = ('bbox_head', 'rpn_head')
# Of an RPN, whose ReLU is a function.
HIDDEN = 'rpn_conv'
LEAST_P = 2
CONVERTED = 'converted.pth'
TEMPLATES = ('eligible.py', 'converted.py')
RESULTS = 'results.json'  # of each form
LATER = ('dense_deployed.pth', 'deployed.pth', RESULTS, PAGE)  # what is made of these
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
    try:
        check_precision(args.precision, torch.device('cpu'))
    except ValueError as error:
        raise UserError(str(error)) from error
    cfg = configs.read_config(args.config)
    configs.merge_options(cfg, args.cfg_options)
    content = checkpoint.read_weights(args.checkpoint)
    root = args.data_root
    if root and use_data(root, [cfg], content):
        root = None  # the config now names its images
    configs.use_own_hooks(cfg)
    model = build_detector(cfg.model)
    _check_dense(model, args.config)
    checkpoint.load_weights(model, content, args.checkpoint)
    _check_arguments(args, cfg, out)

    def write_config(name: str, written: Config) -> str:
        write_whole(out / name, written.pretty_text.encode())
        return str(out / name)

    given = args.checkpoint
    if not Path(given).is_file():  # a URL, which later steps do not read
        given = str(_step(out / 'dense.pth', lambda: save_whole(content, out / 'dense.pth')))
    dense = write_config('dense.py', cfg)
    layers = eligible_layers(model, args.p or LEAST_P, args.exclude)
    eligible, result = (out / name for name in TEMPLATES)
    template = result if args.p else eligible
    wanted = converted(cfg, cfg.model, layers, args.arrangement)
    _step(template, lambda: write_config(template.name, wanted))
    files = argparse.Namespace(checkpoint=given, data_root=root, cfg_options=None)
    images = argparse.Namespace(calib=args.calib, seed=args.seed, keep=())

    def deployed(config: str, weights: str, name: str) -> Path:
        words = argparse.Namespace(
            **(vars(files) | vars(images) | dict(config=config, checkpoint=weights)),
            out=str(out / name),
            precision=args.precision,
            eval=False,  # all forms are at the end
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
                eval=True,
                method='lstsq',
                permute=args.permute or args.arrangement == 'permuted',
                distil=args.distil,
                target_macs=args.target_macs,
                target_ms=args.target_ms,
            )
        ),
    )
    deployed_dense = deployed(dense, given, 'dense_deployed.pth')
    deployed_het = deployed(str(result), str(weights), 'deployed.pth')
    text = train_on(out, cfg, args.precision, Path(given).resolve())
    write_whole(out / 'train_on.py', text.encode())
    forms = [(dense, given, False)]
    if args.precision != 'fp32':
        forms.append((dense, given, True))
    forms += [(dense, str(deployed_dense), True), (str(result), str(weights), False)]
    forms.append((str(result), str(deployed_het), True))
    if not _is_measured(out):
        (out / PAGE).unlink(missing_ok=True)
    _step(out / PAGE, lambda: _report(out, cfg, root, forms, args.seed))
    _tell(out, args)


def _tell(out: Path, args: argparse.Namespace) -> None:
    """The last lines: what was gained, and what comes next."""
    gained, sentence = gain(json.loads((out / RESULTS).read_text()))
    announce(f'{out / PAGE} is the report: {sentence}')
    if gained:
        announce(f'next, to train it on: python tools/train.py {out / "train_on.py"}')
        return
    p = 2 * (args.p or LEAST_P)
    announce(f'next, to convert it further: the same with --p {p} --out {out}_p{p}')


def _check_dense(model: nn.Module, config: str) -> None:
    layers = sum(isinstance(module, HetConv2d) for module in model.modules())
    if layers:
        raise UserError(
            f'config {config}: its detector has {layers} HetConv layers already; slim.py takes a '
            'dense one, and tools/deploy.py makes the inference form of this one'
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


def _report(
    out: Path, cfg: Config, root: str | None, forms: list[tuple[str, str, bool]], seed: int
) -> None:
    """Evaluate and time each form; what compare.py writes of the first and the last."""
    images = out / 'images'
    shutil.rmtree(images, ignore_errors=True)
    images.mkdir()
    for number, path in enumerate(_shown_images(cfg, root, seed)):
        shutil.copy(path, images / f'{number:02}_{Path(path).name}')
    sides = [load_side('', *form) for form in forms]
    sides[0].name, sides[-1].name = 'A', 'B'
    conversion = torch.load(out / CONVERTED, weights_only=True)['meta']['conversion']
    if conversion['metrics']:
        _evaluate(out, cfg, sides, conversion['metrics'])
    compare(
        argparse.Namespace(
            images=str(images),
            out=str(out),
            ann_file=None,
            score_thr=0.3,
            max_images=SHOWN,
            rounds=ROUNDS,
        ),
        sides,
        picture=draw_layers(
            Config.fromfile(out / 'converted.py').model.layers, conversion['relative_error']
        ),
        command=f'python tools/train.py {out / "train_on.py"}',
    )
    _write_results(out, sides)


def _evaluate(
    out: Path, cfg: Config, sides: Sequence[Side], measured: dict[str, dict[str, float]]
) -> None:
    """Set the metrics of all forms; the conversion has measured both trained ones."""
    known = {}
    if (out / RESULTS).exists():
        known = {row['label']: row['metrics'] for row in json.loads((out / RESULTS).read_text())}
    trained = list(measured.values())
    known |= {sides[0].label: trained[0], sides[-2].label: trained[-1]}
    for side in sides:
        if not known.get(side.label):
            announce(f'test set, {side.label}')
            known[side.label] = evaluate(cfg, side.inferencer.model)
        side.metrics = known[side.label]
        _write_results(out, sides)


def _is_measured(out: Path) -> bool:
    """Whether the results are there, and whole."""
    path = out / RESULTS
    return path.exists() and all(row['ms'] for row in json.loads(path.read_text()))


def _write_results(out: Path, sides: Sequence[Side]) -> None:
    rows = [
        dict(
            label=side.label,
            metrics=side.metrics,
            ms=side.times and side.spread()[0],
            macs=side.macs,
        )
        for side in sides
    ]
    write_whole(out / RESULTS, json.dumps(rows, indent=1).encode())


def _shown_images(cfg: Config, root: str | None, seed: int) -> list[str]:
    """Test images, or some of those that it was calibrated on."""
    if root or not has_annotations(cfg):
        return choose_images(root, cfg, SHOWN, seed)
    _, leaf = next(leaf_datasets(cfg.test_dataloader.dataset, ''))
    infos = read_infos(leaf)
    step = max(1, len(infos) // SHOWN)
    return [info['img_path'] for info in infos[::step]][:SHOWN]
