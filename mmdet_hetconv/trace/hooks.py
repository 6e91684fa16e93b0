"""Forward hooks for the time of a block."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn


@contextmanager
def hooked(
    modules: Mapping[str, nn.Module],
    before: Callable[[str, Any], None] | None = None,
    after: Callable[[str, Any, Any], None] | None = None,
) -> Iterator[None]:
    """Call ``before(name, x)`` and ``after(name, x, y)`` whenever one of the modules runs.

    x is the first argument of forward(), positional or by keyword, y its result before
    other hooks change it. Scripted modules take no hooks and are skipped.
    """
    with ExitStack() as stack:
        for name, module in modules.items():
            if isinstance(module, torch.jit.ScriptModule):
                continue
            first, second = _hooks(name, before, after)
            if before is not None:
                handle = module.register_forward_pre_hook(first, with_kwargs=True)
                stack.callback(handle.remove)
            if after is not None:
                handle = module.register_forward_hook(second, with_kwargs=True, prepend=True)
                stack.callback(handle.remove)
        yield


def _hooks(name: str, before: Any, after: Any) -> tuple[Callable[..., None], Callable[..., None]]:
    def first(module: nn.Module, args: Any, kwargs: Any) -> None:
        before(name, _first(args, kwargs))

    def second(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        after(name, _first(args, kwargs), output)

    return first, second


def _first(args: Any, kwargs: Any) -> Any:
    return next(iter((*args, *kwargs.values())), None)
