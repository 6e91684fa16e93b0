"""Builders' errors about a config's values, as a user's mistake."""

import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from mmdet.registry import MODELS

from ..utils.errors import UserError
from .config import STAND_INS, takes_conv_cfg, walk

# How Python says that an argument is missing or unknown.
_WRONG_ARGUMENT = re.compile(r'\w\(\) (got an unexpected|got multiple|missing)')


@contextmanager
def explained_build(model_cfg: dict, what: str = 'the model') -> Iterator[None]:
    """Turn a builder's error about a config's values into a UserError.

    That is an error with a text, an unknown type among them, a failed
    assertion, and an argument that a component lacks or does not have.
    Anything else is a fault.
    """
    _check_conv_cfgs(model_cfg)
    try:
        yield
    except UserError:
        raise
    except (ValueError, KeyError, AssertionError, TypeError) as error:
        text = str(error.args[0]) if error.args else ''
        if isinstance(error, AssertionError) and not text:
            text = str(traceback.extract_tb(error.__traceback__)[-1].line)
        known = _WRONG_ARGUMENT.search(text) if isinstance(error, TypeError) else ' ' in text
        if not known:
            raise
        raise UserError(f'{what} cannot be built: {text}') from error


def _check_conv_cfgs(model_cfg: dict) -> None:
    """Raise UserError for a conv_cfg on a component whose Het... class takes it instead."""
    for path, part in walk(model_cfg):
        kind = part.get('type')
        stand_in = STAND_INS.get(kind) if isinstance(kind, str) else None
        if stand_in and part.get('conv_cfg') and not takes_conv_cfg(MODELS.get(kind)):
            raise UserError(
                f'{path}.type={kind!r} takes no conv_cfg: {path}.type={stand_in!r} does'
            )
