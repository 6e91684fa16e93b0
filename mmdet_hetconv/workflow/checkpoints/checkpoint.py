"""Checkpoints: read safely, checked for completeness, loaded in full."""

import logging
import pickle
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError

import torch
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import CheckpointLoader
from torch import Tensor, nn

from ...layers import HetConv2d, residue_order
from ...utils.announce import announce
from ...utils.errors import UserError
from ...utils.suggestion import did_you_mean_file
from ..config.config_parts import is_local
from ..config.downloads import by_hand
from .safe_globals import training_checkpoints

# What Runner.resume() of mmengine reads.
_RESUME_KEYS = ('state_dict', 'meta', 'message_hub')
# What mmengine calls a checkpoint to go on from; not so its published ones.
_NAME = re.compile(r'(epoch|iter)_\d+\.pth')
# What torch's refusals name.
_REFUSED = re.compile(
    r'(?:GLOBAL|function|but got) (.+?)(?: was not an| whose module|$)', re.MULTILINE
)


def read_checkpoint(path: str | Path) -> dict:
    """The content of a checkpoint on the CPU, without running any of it.

    Raises:
        UserError: no such file, a truncated one, one that is no checkpoint,
            or one that holds anything but tensors, plain containers and what
            :func:`safe_globals.checkpoint_globals` lists.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError(f'checkpoint {path} does not exist{did_you_mean_file(path)}')
    try:
        with explained_unpickling(f'checkpoint {path}'), training_checkpoints():
            content = torch.load(path, map_location='cpu', weights_only=True)
    except UserError:
        raise
    except Exception as error:  # of a file of any content, anything
        raise UserError(
            f'checkpoint {path} cannot be read, it is truncated, damaged or '
            f'no checkpoint ({_first_line(error)})'
        ) from error
    if not isinstance(content, dict):
        raise UserError(f'{path} is not a checkpoint: it holds a {type(content).__name__}')
    return content


def read_weights(path: str) -> dict:
    """A checkpoint's content, from a file, a URL or 'torchvision://NAME'.

    Raises:
        UserError: as :func:`read_checkpoint`; it cannot be downloaded.
    """
    if is_local(path):
        return read_checkpoint(path)
    try:
        with explained_unpickling(f'checkpoint {path}'):
            return CheckpointLoader.load_checkpoint(path, map_location='cpu')
    except UserError:
        raise
    except (URLError, ConnectionError, TimeoutError) as error:
        text = f'checkpoint {path} cannot be downloaded: {by_hand(path, error)}'
        raise UserError(text) from error
    except Exception as error:  # a download: anything may happen
        raise UserError(f'checkpoint {path} cannot be loaded: {error}') from error


@contextmanager
def explained_unpickling(what: str) -> Iterator[None]:
    """Turn torch's refusal to unpickle something into a UserError."""
    try:
        yield
    except pickle.UnpicklingError as error:
        # torch's message names the global and then advises, over many lines,
        # to switch the protection off.
        refused = _REFUSED.search(str(error))
        if refused is None:
            raise UserError(f'{what} cannot be read, it is no checkpoint of torch') from error
        raise UserError(
            f'{what} is refused: it holds {refused[1]}, and loading that could run any code'
        ) from error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0]


def check_resumable(path: str | Path) -> dict:
    """The content of a checkpoint from which a training can go on.

    Raises:
        UserError: as :func:`read_checkpoint`; weights without the state of
            their training; a config to be run.
    """
    content = read_checkpoint(path)
    for key in _RESUME_KEYS:
        if not isinstance(content.get(key), dict):
            raise UserError(
                f'--resume: checkpoint {path} has no {key!r}, it is not the state of a training'
            )
    if 'config' in content['meta']:
        # Runner.resume() of mmengine executes it. No version of mmengine
        # writes it, those of mmcv before 2.0 did.
        raise UserError(
            f'--resume: checkpoint {path} is refused: it holds a config, '
            'which is a program and would be run'
        )
    return content


def is_complete(path: Path) -> bool:
    """Whether a checkpoint was written to its end.

    torch writes a zip archive, whose directory is at the end and holds a
    checksum of every entry.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, OSError, EOFError, ValueError):
        return False


def newest_checkpoint(work_dir: str | Path) -> Path | None:
    """The newest complete checkpoint of a work directory, or None.

    The one that mmengine's ``last_checkpoint`` names comes first: it is
    written after a checkpoint was saved. With ``save_best`` a checkpoint is
    written twice, so the one it names may be half-written all the same.
    """
    work_dir = Path(work_dir)
    for path in _newest_first(work_dir):
        if is_complete(path):
            return path
        announce(f'{path} is incomplete, it is not resumed from', logging.WARNING)
    return None


def _newest_first(work_dir: Path) -> Iterator[Path]:
    """The named checkpoint, then the others by time of writing."""
    note = work_dir / 'last_checkpoint'
    named = note.read_text().strip() if note.is_file() else ''
    folders = [work_dir]
    if named and Path(named).is_file():
        folders.append(Path(named).parent)
        yield Path(named)
    found = {
        path.resolve()
        for folder in folders
        for path in folder.glob('*.pth')
        if _NAME.fullmatch(path.name)
    }
    if named:
        found.discard(Path(named).resolve())
    yield from sorted(found, key=lambda p: p.stat().st_mtime, reverse=True)


def unwrap(model: nn.Module) -> nn.Module:
    """The detector inside data parallelism and test-time augmentation."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model


def load_weights(model: nn.Module, content: dict, path: str | Path) -> None:
    """Load a checkpoint's weights, all of them.

    mmengine loads what fits and logs the rest, so that a checkpoint of
    another architecture is evaluated, or trained on, with random weights.
    Weights that the model has no place for are told.

    Raises:
        UserError: weights are missing or have another shape.
    """
    state = content.get('state_dict', content)
    state = {re.sub(r'^module\.', '', key): v for key, v in state.items()}
    model = unwrap(model)
    try:
        missing, unexpected = model.load_state_dict(state, strict=False)
        wrong = [f'{key} is missing' for key in missing]
    except RuntimeError as error:  # torch has a line for each shape
        _, *wrong = str(error).splitlines()
    if wrong:
        reason = _other_heterogeneity(model, state) or wrong[0].strip()
        raise UserError(
            f'checkpoint {path} is not of the model in the config: {reason} '
            f'({len(wrong)} weights of {len(model.state_dict())} do not fit)'
        )
    if unexpected:
        announce(
            f'{path}: {len(unexpected)} weights that the model has no place '
            f'for are not loaded: {unexpected[0]}, ...'
        )


def _other_heterogeneity(model: nn.Module, state: dict[str, Tensor]) -> str | None:
    """How checkpoint and model differ in p or arrangement; None if they do not."""
    for name, layer in model.named_modules():
        theirs = state.get(f'{name}.grouped.weight')
        if theirs is None or not isinstance(layer, nn.Conv2d | HetConv2d):
            continue
        filters, own, *taps = theirs.shape
        if filters != layer.out_channels or tuple(taps) != layer.kernel_size:
            continue
        if isinstance(layer, nn.Conv2d):
            return f'{name} is a HetConv in the checkpoint and a plain convolution in the config'
        p = layer.in_channels // own
        if p != layer.p:
            return f'{name} has p={p} in the checkpoint and p={layer.p} here'
        theirs = _arrangement(state.get(f'{name}.input_order'), p)
        if layer.arrangement not in ('permuted', theirs):
            return (
                f'{name} has arrangement={theirs!r} in the checkpoint and '
                f'{layer.arrangement!r} here'
            )
    return None


def _arrangement(input_order: Tensor | None, p: int) -> str:
    """The arrangement that a channel order belongs to."""
    if input_order is None:
        return 'blocked'
    order = residue_order(len(input_order), p)
    return 'shifted' if torch.equal(input_order.cpu(), order) else 'permuted'
