"""A module's own code as a graph of torch.fx, its children taken as they are."""

import copy
from typing import Any

import torch
from torch import fx, nn


class _Tracer(fx.Tracer):
    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return True


def trace_code(module: nn.Module) -> fx.Graph | None:
    """The code of forward(); None where it cannot be traced, as it branches for one."""
    if isinstance(module, nn.Sequential | fx.GraphModule | torch.jit.ScriptModule):
        return None
    try:
        return _Tracer().trace(_stand_in(module))
    except Exception:  # whatever code says of proxies in place of tensors
        return None


def _stand_in(module: nn.Module) -> nn.Module:
    """A copy that traced code may change; it has the module's own children and parameters."""
    kept = [*module.modules(), *module.parameters()]
    memo: dict[int, Any] = {id(part): part for part in kept if part is not module}
    return copy.deepcopy(module, memo)
