"""What shows that convolutions choose their kernels on a first run."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from ..utils.progress import progress_bar
from .planned_conv import planned_convs


@contextmanager
def first_run(model: nn.Module, title: str = 'Timing kernels') -> Iterator[None]:
    """A bar that moves on by one for each planned convolution that has run."""
    convs = planned_convs(model)
    with progress_bar(title, len(convs), bool(convs)) as step:

        def once(conv: nn.Module) -> Callable[..., None]:
            def hook(*_: Any) -> None:
                handles.pop(conv).remove()
                step()

            return hook

        handles: dict[nn.Module, Any] = {}
        for conv in convs:
            handles[conv] = conv.register_forward_hook(once(conv))
        try:
            yield
        finally:
            for handle in handles.values():
                handle.remove()
