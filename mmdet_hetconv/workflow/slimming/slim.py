"""From a trained dense detector to a faster one: all steps, in one folder.

Each step leaves a file, written whole; a step whose file is there is not done again.
"""

import copy
import dataclasses
import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device
from torch import nn

from ...analysis.config import input_shape
from ...deploy.precision import check_precision
from ...layers import HetConv2d
from ...utils.announce import announce
from ...utils.errors import UserError
from ...utils.files import check_writable, save_whole, write_whole
from ..calibration_images import TO_FIT, ImageBatches, Images, choose_images, test_pipeline
from ..checkpoints import checkpoint as checkpoints
from ..config.config_parts import leaf_datasets, read_infos
from ..config.configs import classes_of, dataset_meta, read_config, use_own_hooks
from ..config.detector import build_detector
from ..conversion import Conversion, convert_detector
from ..deployment import deploy_detector
from ..evaluation import evaluate, has_annotations
from ..layer_choice import converted, eligible_layers
from .gain import gain
from .measure import Form, boxes_on, measure
from .train_on import train_on

LEAST_P = 2
CONVERTED = 'converted.pth'
DEPLOYED = 'deployed.pth'
DENSE_DEPLOYED = 'dense_deployed.pth'
REPORT = 'report.json'
PAGE = 'index.html'  # made of the report
# The configs that the conversion is of, and what is made of its result.
TEMPLATES = ('eligible.py', 'converted.py')
LATER = (DENSE_DEPLOYED, DEPLOYED, REPORT, PAGE)
NOTE = 'slim.json'  # of what all that is the work
SHOWN = 12  # images in the report


def slim(
    config: str | Config,
    checkpoint: str,
    out: str | Path,
    *,
    p: int | None = 4,
    target_macs: float | None = None,
    target_ms: float | None = None,
    images: Images = TO_FIT,
    distil: Mapping[str, float] | None = None,
    permute: bool = False,
    arrangement: str = 'blocked',
    precision: str = 'fp32',
    exclude: Sequence[str] = (),
) -> dict[str, Any]:
    """Convert a trained dense detector, deploy it, and measure what was gained.

    Args:
        config: of the dense detector, a file or at hand.
        checkpoint: its weights, a file or URL.
        out: folder of the work. What is there of the same work is taken, not done again.
        p: of every layer; None with a budget.
        target_macs, target_ms: the budget, see :func:`convert_detector`.
        images: without labels, to fit the layers and the levels of int8 to.
        distil: steps or minutes of training towards the dense detector; None for none.
        permute: choose which channels share a block, where their order is free.
        arrangement: 'blocked' or 'permuted', see :class:`HetConv2d`.
        precision: of the deployed detector: 'fp32', 'bf16' or 'int8'.
        exclude: layers or modules that stay dense.

    Returns:
        dict: the report, as ``out``/report.json holds it: ``forms`` (label, metrics,
        milliseconds, MACs of each), ``layers`` (p and error by name), ``images`` and what
        was detected there, ``gained`` and ``sentence``, ``next``.

    Raises:
        UserError: a mistake in the config, the checkpoint or the images; the folder
            holds the work of other arguments.
    """
    asked = dict(
        config=str(config.filename if isinstance(config, Config) else config),
        checkpoint=str(checkpoint),
        p=p,
        target_macs=target_macs,
        target_ms=target_ms,
        images=dataclasses.asdict(images),
        distil=distil and dict(distil),
        permute=permute,
        arrangement=arrangement,
        precision=precision,
        exclude=list(exclude),
    )
    out = Path(out).expanduser().resolve()
    check_writable(out, '--out')
    try:
        check_precision(precision, torch.device(get_device()))
    except ValueError as error:
        raise UserError(str(error)) from error
    cfg = read_config(config)
    content = checkpoints.read_weights(checkpoint)
    use_own_hooks(cfg)
    dense = build_detector(cfg)
    _check_dense(dense, asked['config'])
    checkpoints.load_weights(dense, content, checkpoint)
    layers = eligible_layers(dense, p or LEAST_P, exclude)
    work = _Work(out, precision, images)
    work.check_same(asked, cfg)
    weights = work.keep_dense(cfg, content, checkpoint)
    if not (out / CONVERTED).exists():
        template = out / ('converted.py' if p else 'eligible.py')
        wanted = converted(cfg, cfg.model, layers, arrangement)
        write_whole(template, wanted.pretty_text.encode())
        conversion = convert_detector(
            cfg,
            dense,
            read_config(str(template)),
            images=images,
            permute=permute or arrangement == 'permuted',
            distil=distil,
            target_macs=target_macs,
            target_ms=target_ms,
        )
        work.keep_conversion(conversion, content)
    write_whole(out / 'train_on.py', train_on(out, cfg, precision, weights).encode())
    report = work.read_report()
    if report is None:
        het_cfg, het, record = work.read_conversion()
        forms = work.forms(cfg, dense.to(get_device()), het_cfg, het, content)
        report = work.report(cfg, classes_of(cfg, content, checkpoint), forms, record)
        report['next'] = _next_command(out, p, report['gained'])
        write_whole(out / REPORT, json.dumps(report, indent=1).encode())
    return report


def _check_dense(model: nn.Module, config: str) -> None:
    layers = sum(isinstance(module, HetConv2d) for module in model.modules())
    if layers:
        raise UserError(
            f'config {config}: its detector has {layers} HetConv layers already; slim.py takes a '
            'dense one, and tools/deploy.py makes the inference form of this one'
        )


def _next_command(out: Path, p: int | None, gained: bool) -> str:
    if gained:
        return f'to train it on: python tools/train.py {out / "train_on.py"}'
    p = 2 * (p or LEAST_P)
    return f'to convert it further: the same with --p {p} --out {out}_p{p}'


@dataclass
class _Work:
    """The folder of one run: existing results are read, missing ones are made."""

    out: Path
    precision: str
    images: Images

    def check_same(self, asked: dict[str, Any], cfg: Config) -> None:
        """Record the arguments, or refuse if the folder holds results of other arguments."""
        mine = json.loads(json.dumps(asked))
        # The same names may hold something else than they did.
        mine['config_sha256'] = _digest(cfg.pretty_text.encode())
        if Path(asked['checkpoint']).is_file():
            mine['checkpoint_sha256'] = _digest(Path(asked['checkpoint']).read_bytes())
        note = self.out / NOTE
        if not (note.exists() and (self.out / CONVERTED).exists()):
            for name in (*TEMPLATES, *LATER):
                (self.out / name).unlink(missing_ok=True)
            write_whole(note, json.dumps(mine, indent=1).encode())
            return
        theirs = json.loads(note.read_text())
        for key, value in mine.items():
            if theirs.get(key) != value:
                raise UserError(
                    f'--out {self.out} holds the work of {key}={theirs.get(key)}, not of '
                    f'{key}={value}: name another folder'
                )

    def keep_dense(self, cfg: Config, content: dict, checkpoint: str) -> Path:
        """Write the dense detector's config; the path of its weights."""
        write_whole(self.out / 'dense.py', cfg.pretty_text.encode())
        if Path(checkpoint).is_file():
            return Path(checkpoint).resolve()
        # A URL, which the config for training on cannot name.
        save_whole(content, self.out / 'dense.pth')
        return self.out / 'dense.pth'

    def keep_conversion(self, conversion: Conversion, content: dict) -> None:
        conversion.meta |= dataset_meta(content)
        write_whole(self.out / 'converted.py', conversion.cfg.pretty_text.encode())
        save_whole(conversion.content(), self.out / CONVERTED)
        announce(f'{self.out / CONVERTED} written, {conversion.report["seconds"]:.0f} s')

    def read_conversion(self) -> tuple[Config, nn.Module, dict[str, Any]]:
        """Config and detector of the conversion, and its record."""
        cfg = read_config(str(self.out / 'converted.py'))
        content = checkpoints.read_checkpoint(self.out / CONVERTED)
        model = build_detector(cfg)
        checkpoints.load_weights(model, content, self.out / CONVERTED)
        return cfg, model.to(get_device()), content['meta']['conversion']

    def forms(
        self, cfg: Config, dense: nn.Module, het_cfg: Config, het: nn.Module, content: dict
    ) -> list[Form]:
        """All forms: the dense detector as given comes first, the shipped one last."""
        forms = [Form('dense', 'trained form (fp32)', cfg, dense)]
        meta = dict(meta=dataset_meta(content))
        if self.precision != 'fp32':
            forms.append(self._deployed('', 'dense', cfg, dense, 'fp32', meta))
        forms += [
            self._deployed(DENSE_DEPLOYED, 'dense', cfg, dense, self.precision, meta),
            Form('HetConv', 'trained form (fp32)', het_cfg, het),
            self._deployed(DEPLOYED, 'HetConv', het_cfg, het, self.precision, meta),
        ]
        for form in forms:
            trained = het if form.kind == 'HetConv' else dense
            form.parameters = sum(p.numel() for p in trained.parameters())
            form.het_layers = sum(isinstance(m, HetConv2d) for m in trained.modules())
        return forms

    def _deployed(
        self, name: str, kind: str, cfg: Config, model: nn.Module, precision: str, meta: dict
    ) -> Form:
        """The inference form, read from its file if that exists; '' is no file."""
        path = self.out / name
        is_there = bool(name) and path.exists()
        state = checkpoints.read_checkpoint(path) if is_there else None
        deployed = deploy_detector(
            cfg,
            copy.deepcopy(model),
            state or dict(state_dict=model.state_dict(), **meta),
            str(path),
            precision=precision,
            images=self.images,
            tune=None if is_there else input_shape(cfg),
        )
        if name and not is_there:
            save_whole(deployed.content(), path)
            announce(f'{path} written')
        return Form(kind, f'deployed ({precision})', cfg, deployed.model)

    def read_report(self) -> dict[str, Any] | None:
        """The report, if it is complete and the files that it describes exist."""
        path = self.out / REPORT
        report = json.loads(path.read_text()) if path.exists() else {}
        is_whole = 'sentence' in report and (self.out / 'images').is_dir()
        deployed = (self.out / DENSE_DEPLOYED).exists() and (self.out / DEPLOYED).exists()
        return report if is_whole and deployed else None

    def report(
        self, cfg: Config, classes: Sequence[str], forms: Sequence[Form], record: dict
    ) -> dict[str, Any]:
        """Evaluate and time each form, and let the first and the last detect on images."""
        if record['metrics']:
            self._evaluate(forms, record['metrics'])
        paths = _shown_images(cfg, self.images)
        shutil.rmtree(self.out / 'images', ignore_errors=True)
        (self.out / 'images').mkdir()
        batches = ImageBatches(paths, test_pipeline(cfg))
        shown = []
        for number, path in enumerate(paths):
            name = f'{number:02}_{Path(path).name}'
            shutil.copy(path, self.out / 'images' / name)
            found = [boxes_on(form.model, batches[number]) for form in (forms[0], forms[-1])]
            shown.append(dict(name=name, found=found))
        measure(forms, [batches[0]] * len(forms))
        gained, sentence = gain([form.row() for form in forms])
        layers = Config.fromfile(self.out / 'converted.py').model.layers
        return dict(
            forms=[form.row() for form in forms],
            layers={
                name: dict(p=p, error=record['relative_error'].get(name))
                for name, p in layers.items()
            },
            classes=list(classes),
            images=shown,
            gained=gained,
            sentence=sentence,
        )

    def _evaluate(self, forms: Sequence[Form], measured: dict[str, dict[str, float]]) -> None:
        """Set the metrics of all forms; the conversion has measured both trained ones."""
        path = self.out / REPORT
        known = {}
        if path.exists():
            rows = json.loads(path.read_text())['forms']
            known = {row['label']: row['metrics'] for row in rows}
        dense, *_, converted = measured.values()
        known |= {forms[0].label: dense, forms[-2].label: converted}
        for form in forms:
            if not known.get(form.label):
                announce(f'test set, {form.label}')
                known[form.label] = evaluate(form.cfg, form.model)
            form.metrics = known[form.label]
            rows = [form.row() for form in forms]
            write_whole(path, json.dumps(dict(forms=rows)).encode())


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _shown_images(cfg: Config, images: Images) -> list[str]:
    """Paths of the images in the report: test images, else calibration images."""
    if images.folder or not has_annotations(cfg):
        return choose_images(images.folder, cfg, SHOWN, images.seed)
    _, leaf = next(leaf_datasets(cfg.test_dataloader.dataset, ''))
    infos = read_infos(leaf)
    step = max(1, len(infos) // SHOWN)
    return [info['img_path'] for info in infos[::step]][:SHOWN]
