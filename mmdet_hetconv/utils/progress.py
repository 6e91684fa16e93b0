"""A bar for work that takes long."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress

from .announce import is_first_process


@contextmanager
def progress_bar(title: str, total: int, show: bool = True) -> Iterator[Callable[[], None]]:
    """A bar on stderr; what is yielded moves it on by one.

    Where stderr is no terminal its last state alone is written.
    """
    console = Console(stderr=True)
    with Progress(console=console, disable=not (show and is_first_process())) as progress:
        task = progress.add_task(title, total=total)
        yield lambda: progress.advance(task)
