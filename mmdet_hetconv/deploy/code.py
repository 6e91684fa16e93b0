"""A module's own code as a graph of torch.fx, its children taken as they are."""

import copy
from typing import Any

import torch
from torch import fx, nn


class _Tracer(fx.Tracer):
    """Notes whether code asks for a value or a size to decide what it does."""

    branches = False

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return True

    def to_bool(self, obj: fx.Proxy) -> bool:
        if getattr(obj, 'attr', None) == 'requires_grad':
            return False
        self.branches = True
        return super().to_bool(obj)


def trace_code(module: nn.Module) -> tuple[fx.Graph | None, bool]:
    """The code of forward(), and whether it branches on values or sizes of tensors.

    The graph is None where the code branches, or cannot be traced for another reason.
    """
    if isinstance(module, nn.Sequential | fx.GraphModule | torch.jit.ScriptModule):
        return None, False
    tracer = _Tracer()
    try:
        return tracer.trace(_stand_in(module)), False
    except Exception:  # whatever code says of proxies in place of tensors
        return None, tracer.branches


def _stand_in(module: nn.Module) -> nn.Module:
    """A copy that traced code may change; it has the module's own children and parameters."""
    kept = [*module.modules(), *module.parameters()]
    memo: dict[int, Any] = {id(part): part for part in kept if part is not module}
    return copy.deepcopy(module, memo)
