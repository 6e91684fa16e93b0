"""Traces a module's own code by torch.fx; its children stay calls."""

import copy
from typing import Any

import torch
from torch import fx, nn


class _Tracer(fx.Tracer):
    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return True


def trace_code(module: nn.Module) -> fx.Graph | None:
    """The graph of forward(); None if it cannot be traced, as where it branches."""
    if isinstance(module, nn.Sequential | fx.GraphModule | torch.jit.ScriptModule):
        return None
    try:
        return _Tracer().trace(_stand_in(module))
    except Exception:  # code may raise anything on proxies in place of tensors
        return None


def _stand_in(module: nn.Module) -> nn.Module:
    """A copy that tracing may change; it shares the module's children and parameters."""
    kept = [*module.modules(), *module.parameters()]
    memo: dict[int, Any] = {id(part): part for part in kept if part is not module}
    return copy.deepcopy(module, memo)
