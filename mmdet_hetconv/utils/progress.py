"""A progress bar for long work."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress

from .announce import is_first_process


@contextmanager
def progress_bar(title: str, total: int, show: bool = True) -> Iterator[Callable[[], None]]:
    """Show a bar on stderr; the function that is yielded advances it by one.

    Where stderr is no terminal its last state alone is written.
    """
    progress = Progress(
        console=Console(stderr=True),
        # Its thread would disturb what is timed meanwhile.
        auto_refresh=False,
        # What is printed goes above the bar, but not out of a file.
        redirect_stdout=sys.stdout.isatty(),
        redirect_stderr=sys.stderr.isatty(),
        disable=not (show and is_first_process()),
    )
    with progress:
        task = progress.add_task(title, total=total)
        progress.refresh()
        yield lambda: progress.update(task, advance=1, refresh=True)
