"""Pre-trained weights without a network: which file, where to put it, what needs none."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlparse

import torch
from mmengine.config import Config
from mmengine.runner.checkpoint import get_external_models, get_mmcls_models, get_torchvision_models

from ...models.config import walk
from ...utils.errors import UserError
from ...zoo import CONFIGS
from .config_parts import is_local

_ADDRESSES = {
    'torchvision': get_torchvision_models,
    'modelzoo': get_torchvision_models,
    'open-mmlab': get_external_models,
    'openmmlab': get_external_models,
    'mmcls': get_mmcls_models,
}


@contextmanager
def explained_download(cfg: Config) -> Iterator[None]:
    """Turn a download that fails into a UserError that names the file and its place."""
    try:
        yield
    except (URLError, ConnectionError, TimeoutError) as error:
        names = [('load_from', cfg.get('load_from') or '')]
        names += [
            (f'{path}.checkpoint', part['checkpoint'])
            for path, part in walk(cfg.model)
            if isinstance(part.get('checkpoint'), str)
        ]
        missing = [(key, name) for key, name in names if name and not is_local(name)]
        missing = [(key, name) for key, name in missing if not _place(name).is_file()]
        if not missing:
            raise
        key, name = missing[0]
        raise UserError(
            f'pre-trained weights {_place(name).name} ({key}={name!r}) cannot be downloaded: '
            f'{by_hand(name, error)}, or train without: {without_weights(cfg)}'
        ) from error


def by_hand(name: str, error: Exception) -> str:
    """Why a file did not come, and where to put it."""
    reason = getattr(error, 'reason', error)
    return f'{reason}; download {_address(name)} elsewhere and put it into {_place(name).parent}'


def _address(name: str) -> str:
    """The address behind 'torchvision://resnet18' and the like."""
    scheme, _, model = name.partition('://')
    return _ADDRESSES[scheme]().get(model, name) if scheme in _ADDRESSES else name


def _place(name: str) -> Path:
    """Where torch looks for a file before it downloads it."""
    return Path(torch.hub.get_dir(), 'checkpoints', Path(urlparse(_address(name)).path).name)


def without_weights(cfg: Config) -> str:
    """The config of the same detector that needs no weights, or how to write it."""
    path = Path(cfg.filename or '')
    data = '_voc' if path.stem.endswith('_voc') else ''
    stem = path.stem.removesuffix('_voc').removesuffix('_full')
    for folder in (path.parent, CONFIGS):
        scratch = folder / f'{stem}_scratch{data}.py'
        if scratch.is_file():
            return str(scratch)
    return 'backbone=dict(init_cfg=None, frozen_stages=-1, norm_eval=False)'
