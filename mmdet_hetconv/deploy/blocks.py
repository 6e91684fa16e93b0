"""Modules whose code calls functions between convolutions: sums and activations fused.

The code of such a module is traced by torch.fx, alone, its children being taken as
they are. The trace counts only if its steps are those that were seen in the runs.
"""

import copy
from collections.abc import Sequence
from typing import Any

from torch import fx, nn

from ..kernels import PlannedConv2d
from ..layers.cost import CONVOLUTIONS
from ..trace.record import Call, Recording, Scope, has_own_code

# What asks for a tensor's size; the recorder does not note it.
_ASKING = frozenset(('size', 'dim', 'getattr', 'len', 'numel'))


class _Tracer(fx.Tracer):
    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return True


class Block:
    """A module's code as a graph, from which fused forms are made.

    Args:
        module: one that :func:`find_block` has looked at.
        graph: of its code.
        scopes: its calls in the runs.
        steps: what of the graph was seen, by the numbers of the steps in a scope.
    """

    def __init__(
        self, module: nn.Module, graph: fx.Graph, scopes: Sequence[Scope], steps: dict[str, int]
    ):
        self.module = module
        self.graph = graph
        self.scopes = scopes
        self.steps = steps

    def fused(self) -> fx.GraphModule | None:
        """The module with sums and ReLUs in its planned convolutions.

        None where there is nothing to fuse.
        """
        graph = copy.deepcopy(self.graph)
        modules = dict(self.module.named_modules(remove_duplicate=False))
        for node in list(graph.nodes):
            if node.op == 'call_module' and type(modules[node.target]) is nn.Identity:
                _leave_out(graph, node)
        count = 0
        for node in list(graph.nodes):
            if node.op == 'call_module' and self._is_free(graph, node, modules):
                node, summed = self._take_sum(graph, node, modules[node.target])
                count += summed + self._take_relu(graph, node, modules)
        if not count:
            return None
        return fx.GraphModule(self.module, graph, type(self.module).__name__).eval()

    def _is_free(self, graph: fx.Graph, node: Any, modules: dict[str, nn.Module]) -> bool:
        """Whether it is a planned convolution that nobody else calls."""
        places = [name for name, module in modules.items() if module is modules[node.target]]
        return (
            type(modules[node.target]) is PlannedConv2d
            and not modules[node.target].relu
            and len(node.args) == 1
            and len(places) == 1
            and sum(other.target == node.target for other in graph.nodes) == 1
        )

    def _take_sum(self, graph: fx.Graph, node: Any, conv: nn.Module) -> tuple[fx.Node, bool]:
        """Let a convolution add what alone is added to its output."""
        (user,) = node.users if len(node.users) == 1 else (None,)
        if user is None or _name(user) != 'add' or len(user.args) != 2 or user.kwargs:
            return node, False
        if user.args[0] is user.args[1] or not all(isinstance(a, fx.Node) for a in user.args):
            return node, False
        is_first = user.args[0] is node
        if _is_in_place(user) and not is_first:
            return node, False
        if not all(self._may_wait(scope, node, user) for scope in self.scopes):
            return node, False
        with graph.inserting_before(user):
            residual = user.args[1 if is_first else 0]
            together = graph.call_module(node.target, (node.args[0], residual))
        user.replace_all_uses_with(together)
        graph.erase_node(user)
        graph.erase_node(node)
        return together, True

    def _may_wait(self, scope: Scope, node: Any, user: Any) -> bool:
        """Whether the sum is of equal shapes, and the input still there when it is made."""
        if node.name not in self.steps or user.name not in self.steps:
            return False
        conv, added = (scope.steps[self.steps[n.name]] for n in (node, user))
        assert isinstance(conv, Call) and isinstance(added, Call)
        between = [call for call in scope.calls() if conv.number < call.number < added.number]
        given = {value.storage for value in conv.inputs}
        shapes = {value.shape for value in added.inputs}
        is_pair = len(added.inputs) == 2 and len(shapes) == 1 and not added.kwargs
        return is_pair and not any(given & call.changed for call in between)

    @staticmethod
    def _take_relu(graph: fx.Graph, node: Any, modules: dict[str, nn.Module]) -> bool:
        (user,) = node.users if len(node.users) == 1 else (None,)
        if user is None or len(user.all_input_nodes) != 1:
            return False
        if user.op == 'call_module':
            act = modules[user.target]
            if type(act) is not nn.ReLU or has_own_code(act):
                return False
        elif _name(user) != 'relu':
            return False
        conv: Any = modules[node.target]
        conv.relu = True
        user.replace_all_uses_with(node)
        graph.erase_node(user)
        return True


def find_block(module: nn.Module, recordings: Sequence[Recording]) -> Block | None:
    """The module's code as a graph, if functions follow on its convolutions.

    None where it cannot be traced, or where the trace is not what was seen.
    """
    scopes = [scope for recording in recordings for scope in recording.scopes_of(module)]
    if 'forward' in vars(module) or module._forward_hooks or module._forward_pre_hooks:
        return None
    if isinstance(module, nn.Sequential | fx.GraphModule) or not _may_fuse(scopes[0]):
        return None
    if any(len(scope.given) != 1 for scope in scopes):
        return None
    try:
        graph = _Tracer().trace(module, _defaults(module))
    except Exception:  # whatever code says that does not trace
        return None
    nodes = [n for n in graph.nodes if n.op.startswith('call') and _name(n) not in _ASKING]
    children = dict(module.named_modules(remove_duplicate=False))
    for scope in scopes:
        if len(scope.steps) != len(nodes):
            return None
        if not all(_is_step(n, step, children) for n, step in zip(nodes, scope.steps)):
            return None
    return Block(module, graph, scopes, {node.name: i for i, node in enumerate(nodes)})


def _may_fuse(scope: Scope) -> bool:
    """Whether convolutions and functions, or ReLUs, stand side by side."""
    calls = [step for step in scope.steps if isinstance(step, Call)]
    return any(type(call.target) in CONVOLUTIONS for call in calls) and any(
        type(call.target) is nn.ReLU
        or (not call.is_module and _canonical(_called(call.target)) in ('add', 'relu'))
        for call in calls
    )


def _defaults(module: nn.Module) -> dict[str, Any]:
    """Values of all parameters of forward() but the first."""
    import inspect

    parameters = list(inspect.signature(module.forward).parameters.values())
    return {p.name: p.default for p in parameters[1:] if p.default is not p.empty}


def _is_step(node: Any, step: Call | Scope, children: dict[str, nn.Module]) -> bool:
    target = step.target if isinstance(step, Call) else step.module
    if node.op == 'call_module':
        return children[node.target] is target
    return isinstance(step, Call) and step.seen and _name(node) == _canonical(_called(target))


def _leave_out(graph: fx.Graph, node: Any) -> None:
    node.replace_all_uses_with(node.args[0])
    graph.erase_node(node)


def _called(target: Any) -> str:
    return target if isinstance(target, str) else getattr(target, '__name__', '')


def _canonical(name: str) -> str:
    """'add' of add_, __add__, __radd__ and iadd."""
    name = name.strip('_')
    return name[1:] if name in ('iadd', 'radd') else name


def _name(node: Any) -> str:
    return '' if node.op == 'call_module' else _canonical(_called(node.target))


def _is_in_place(node: Any) -> bool:
    name = _called(node.target)
    return name.endswith('_') and not name.endswith('__') or name.strip('_') == 'iadd'
