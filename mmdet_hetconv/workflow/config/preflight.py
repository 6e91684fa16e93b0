"""A detector that is built from a config: what is wrong with it, and what to warn of."""

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager

from mmengine.config import Config
from torch import nn

from ...layers import HetConv2d
from ...models import building
from ...models.config import walk
from ...utils.announce import announce
from ...utils.errors import UserError
from ...utils.suggestion import some
from ..checkpoints.checkpoint import read_checkpoint
from .config_parts import class_names, is_local, leaf_datasets, loaders


def het_conv_cfgs(model: dict) -> Iterator[tuple[str, dict]]:
    """Every conv_cfg of HetConv in a model's config, with its path."""
    for path, part in walk(model):
        if part.get('type') == 'HetConv':
            yield path, part


def explained_build(cfg: Config) -> AbstractContextManager[None]:
    """:func:`building.explained_build` for what is built from a config file."""
    return building.explained_build(cfg.get('model'), f'config {cfg.filename}')


def check_model(model: nn.Module, cfg: Config) -> None:
    """Raise UserError where a config asks for HetConv and gets none."""
    asked = [(path, part) for path, part in het_conv_cfgs(cfg.model) if part.get('p', 4) != 1]
    if asked and not any(isinstance(m, HetConv2d) for m in model.modules()):
        path, part = asked[0]
        raise UserError(
            f'{path}.p={part.get("p", 4)} fits no convolution of the model: '
            'it has to divide the channels of a K x K convolution, K > 1 '
            'and odd, that is not grouped'
        )


def check_classes(content: dict, cfg: Config, path: str) -> None:
    """Raise UserError if a checkpoint was trained on other classes."""
    meta = content.get('meta', {}).get('dataset_meta') or {}
    trained = meta.get('classes')
    for loader in loaders(cfg, ('test',)):
        for key, leaf in leaf_datasets(cfg[loader].dataset, f'{loader}.dataset'):
            classes = class_names(leaf, key)
            if trained and classes and tuple(trained) != classes:
                raise UserError(
                    f'checkpoint {path} was trained on the classes '
                    f'{some(trained)}, {key} has {some(classes)}'
                )


def warn_if_frozen_projected(model: nn.Module, cfg: Config) -> None:
    """Warn of HetConv layers that keep what was projected from dense weights.

    Stock configs freeze the first stage of a pre-trained backbone. Weights of a
    checkpoint that has HetConv itself are the user's choice.
    """
    model.train()  # mmdet's backbones freeze here, too
    frozen = [
        name
        for name, layer in model.named_modules()
        if isinstance(layer, HetConv2d) and not any(p.requires_grad for p in layer.parameters())
    ]
    load_from = cfg.get('load_from') or ''
    pretrained = load_from or any(part.get('checkpoint') for _, part in walk(cfg.model))
    if not frozen or not pretrained:
        return
    if load_from and is_local(load_from):
        content = read_checkpoint(load_from)
        frozen = [n for n in frozen if f'{n}.weight' in content.get('state_dict', content)]
    if frozen:
        announce(
            f'{frozen[0]} and {len(frozen) - 1} more HetConv layers are frozen, with weights that '
            'are projected from dense ones and will not adapt; in most backbones '
            'frozen_stages=0 lets them train',
            logging.WARNING,
        )


def warn_if_frozen_at_random(model: nn.Module, cfg: Config) -> None:
    """Warn of layers that stay as they were drawn at random.

    Stock configs freeze stages and batch-norm statistics of a pre-trained
    backbone. Without its weights the loss becomes NaN or the mAP stays 0.
    """
    backbone = getattr(model, 'backbone', None)
    init_cfg = getattr(backbone, 'init_cfg', None) or {}
    parts = init_cfg if isinstance(init_cfg, list) else [init_cfg]
    if cfg.get('load_from') or any('checkpoint' in part for part in parts):
        return
    frozen = getattr(backbone, 'frozen_stages', -1)
    norm_eval = getattr(backbone, 'norm_eval', False)
    if frozen >= 1 or norm_eval:
        announce(
            f'model.backbone has frozen_stages={frozen} and '
            f'norm_eval={norm_eval}, but no pre-trained weights (init_cfg or '
            'load_from): it will hardly learn; set frozen_stages=-1 and '
            'norm_eval=False to train from scratch',
            logging.WARNING,
        )
