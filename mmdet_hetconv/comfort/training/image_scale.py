"""The size that images are resized to: in training and evaluation alike."""

import logging
from collections.abc import Iterator, Sequence
from typing import Any

from mmengine.config import Config, ConfigDict

from ...models.config import walk
from ...utils.announce import announce
from ...utils.errors import UserError
from ...workflow.config.config_parts import leaf_datasets, type_name
from ...workflow.config.configs import recorded_config

# Transforms that set the size, and the keys that hold one.
_RESIZES = ('Resize', 'FixScaleResize', 'RandomResize', 'RandomChoiceResize')
_WIDTH_FIRST = ('scale', 'scales', 'img_scale', 'size')
_HEIGHT_FIRST = ('crop_size', 'random_size_range')
# How far apart the sizes of training and evaluation are before it is told.
_APART = 1.25

Size = tuple[int, int]


def _pipelines(cfg: Config, role: str) -> list[tuple[str, list]]:
    """All pipelines that an image of a data loader goes through, with their keys."""
    loader = cfg.get(f'{role}_dataloader')
    if not loader:
        return []
    key = f'{role}_dataloader.dataset'
    leaves = list(leaf_datasets(loader.dataset, key))
    outer = [(path, part) for path, part in walk(loader.dataset, key) if 'dataset' in part]
    parts = [(path, part) for path, part in (*leaves, *outer) if part.get('pipeline')]
    return [(f'{path}.pipeline', part.pipeline) for path, part in parts]


def _steps(cfg: Config, role: str) -> Iterator[dict]:
    for path, pipeline in _pipelines(cfg, role):
        for _, step in walk(pipeline, path):
            if 'type' in step:
                yield step


def _sizes(step: dict) -> list[Size]:
    """The sizes between which a step chooses, as (width, height)."""
    value = step.get('scale') or step.get('scales') or ()
    if isinstance(value, int):
        value = (value, value)
    if len(value) == 2 and all(isinstance(side, int) for side in value):
        value = [value]
    found = [tuple(size) for size in value if isinstance(size, list | tuple)]
    if ratios := step.get('ratio_range'):
        found = [(int(w * r), int(h * r)) for w, h in found for r in ratios]
    return found


def _resize(cfg: Config, role: str) -> list[Size]:
    """The sizes of the steps that set it, in a role; none where images keep theirs."""
    return [
        size for step in _steps(cfg, role) if type_name(step) in _RESIZES for size in _sizes(step)
    ]


def warn_of_other_scales(cfg: Config) -> None:
    """Warn where images are trained at another size than they are evaluated at."""
    train, val = _resize(cfg, 'train'), _resize(cfg, 'val')
    if not cfg.get('train_dataloader') or not val:
        return
    if not train:
        if not any(set(step) & {*_WIDTH_FIRST, *_HEIGHT_FIRST} for step in _steps(cfg, 'train')):
            announce(
                'train_dataloader has no Resize in its pipeline: images are trained at their own '
                f'size and evaluated at {val[0]}; --img-scale sets one for both',
                logging.WARNING,
            )
        return
    least, most = (choose(max(size) for size in train) for choose in (min, max))
    if not least / _APART <= max(val[0]) <= most * _APART:
        announce(
            f'images are trained at {", ".join(map(str, dict.fromkeys(train)))} and evaluated '
            f'at {val[0]}; --img-scale sets one for both',
            logging.WARNING,
        )


def warn_of_another_scale(content: dict, cfg: Config, path: str) -> None:
    """Warn where a checkpoint is tested at another size than its own config tests at."""
    recorded = recorded_config(content).get('test_dataloader')
    if not isinstance(recorded, dict) or 'dataset' not in recorded:
        return
    trained, here = _resize(Config(dict(test_dataloader=recorded)), 'test'), _resize(cfg, 'test')
    if trained and here and trained[0] != here[0]:
        announce(
            f'the config that checkpoint {path} was trained by evaluates images at {trained[0]}, '
            f'this one at {here[0]}',
            logging.WARNING,
        )


def set_image_scale(cfg: Config, scale: list[int]) -> None:
    """Resize images to `scale`, a side or (width, height), wherever a config sizes them.

    The test pipeline has that size then; other sizes, those that are drawn in training
    among them, keep their ratio to it. A pipeline without Resize gets one.

    Raises:
        UserError: the detector is made for one size of images.
    """
    for path, part in walk(cfg.model):
        if isinstance(part.get('input_size'), int | list | tuple):
            raise UserError(
                f'--img-scale: {path}.input_size={part["input_size"]} fixes the size of images'
            )
    width, height = scale if len(scale) == 2 else scale * 2
    roles = [role for role in ('test', 'val', 'train') if cfg.get(f'{role}_dataloader')]
    found = [sizes for role in roles if (sizes := _resize(cfg, role))]
    steps = [step for role in roles for step in _steps(cfg, role)]
    steps += [step for _, step in walk(cfg.get('tta_pipeline') or [])]
    keep_ratio = any(step.get('keep_ratio') for step in steps) or not found
    if found:
        old: Sequence[int] = found[0][0]
        if keep_ratio:  # then the longer side is the first
            (width, height), old = sorted((width, height))[::-1], sorted(old)[::-1]
        ratios = width / old[0], height / old[1]
        for step in {id(step): step for step in steps}.values():
            _rescale(step, _WIDTH_FIRST, ratios)
            _rescale(step, _HEIGHT_FIRST, ratios[::-1])
        for _, step in walk(cfg.model.get('data_preprocessor') or {}):
            _rescale(step, ('size', 'random_size_range'), ratios[::-1])
    resize = dict(type='Resize', scale=(width, height), keep_ratio=keep_ratio)
    for role in roles:
        for _, pipeline in [] if _resize(cfg, role) else _pipelines(cfg, role)[:1]:
            loads = [n for n, step in enumerate(pipeline) if type_name(step).startswith('Load')]
            # Annotations are resized with the image in training alone.
            place = loads[-1 if role == 'train' else 0] if loads else -1
            pipeline.insert(place + 1, ConfigDict(resize))
    announce(f'--img-scale: images are resized to {width} x {height} in training and evaluation')


def _rescale(step: dict, keys: tuple[str, ...], ratios: tuple[float, float]) -> None:
    for key in keys:
        if step.get(key) is not None:
            step[key] = _scaled(step[key], ratios, bool(step.get('keep_ratio')))


def _scaled(value: Any, ratios: tuple[float, float], free: bool) -> Any:
    """A side, two of them, or a list of sizes; shares of an image stay as they are.

    Where a size is `free`, its larger number is the longer side, whichever comes first.
    """
    if isinstance(value, int):
        return round(value * max(ratios))
    if isinstance(value, list | tuple):
        if len(value) == 2 and all(isinstance(side, int) for side in value):
            if free and value[0] < value[1]:
                ratios = ratios[::-1]
            return tuple(round(side * ratio) for side, ratio in zip(value, ratios))
        return [_scaled(part, ratios, free) for part in value]
    return value
