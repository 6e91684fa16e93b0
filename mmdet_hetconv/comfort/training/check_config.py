"""What can be known to be wrong in a config before training or evaluation starts."""

from importlib.util import find_spec

from mmdet.registry import MODELS
from mmengine.config import Config

from ...layers.shape import check_p
from ...models.config import walk
from ...utils.announce import announce, is_first_process
from ...utils.errors import UserError
from ...utils.files import check_writable
from ...workflow.checkpoints.checkpoint import read_checkpoint
from ...workflow.config.config_parts import is_local
from ...workflow.config.downloads import without_weights
from ...workflow.config.preflight import het_conv_cfgs
from ..data.checks.check_data import check_data


def check_config(cfg: Config, roles: tuple[str, ...], skip_data: bool = False) -> None:
    """Check model arguments, data sets, images and the work directory.

    Args:
        cfg: of the run.
        roles: which of 'train', 'val' and 'test' the run uses.
        skip_data: take annotations and images as they are.

    Raises:
        UserError: names the key or file and the value.
    """
    for path, part in walk(cfg.model):
        kind = (part.get('conv_cfg') or {}).get('type')
        if isinstance(kind, str) and MODELS.get(kind) is None:
            # mmcv would say "Cannot find None in registry".
            raise UserError(f'{path}.conv_cfg.type={kind} is not registered')
    for path, conv_cfg in het_conv_cfgs(cfg.model):
        try:
            check_p(conv_cfg.get('p', 4), conv_cfg.get('arrangement', 'blocked'))
        except ValueError as error:
            raise UserError(f'{path}: {error}') from error
    if 'train' in roles:  # evaluation does not initialise weights
        _check_pretrained(cfg)
    if skip_data:
        announce('--skip-checks: annotations and images are not checked')
    elif is_first_process():
        check_data(cfg, roles)
    check_writable(cfg.work_dir, 'work dir')


def _check_pretrained(cfg: Config) -> None:
    for key, part in walk(cfg.model):
        name = part.get('checkpoint')
        if part.get('type') != 'Pretrained' or not name:
            continue
        if is_local(name):
            try:
                read_checkpoint(name)
            except UserError as error:
                raise UserError(f'{key}: {error}') from error
        elif name.startswith('torchvision://') and not find_spec('torchvision'):
            raise UserError(
                f'{key}.checkpoint={name!r} needs the package torchvision, '
                'which is not installed; a file or another address does not, '
                f'and to train without weights: {without_weights(cfg)}'
            )
