"""A user's mistake: raised anywhere, printed once, in one line."""

from collections.abc import Iterator
from contextlib import contextmanager


class UserError(ValueError):
    """A mistake in a command line, a config, a data set or a checkpoint.

    The message is one sentence that names the key or the file and the value.
    """


@contextmanager
def one_sentence(tool: str) -> Iterator[None]:
    """End the program with ``TOOL: error: MESSAGE`` on a :class:`UserError`.

    The exit status is 1. Everything else keeps its traceback: it is a fault
    of the program, not of the user.

    Raises:
        SystemExit: in place of a UserError.
    """
    try:
        yield
    except UserError as error:
        message = ' '.join(str(error).split())
        raise SystemExit(f'{tool}: error: {message}') from error
