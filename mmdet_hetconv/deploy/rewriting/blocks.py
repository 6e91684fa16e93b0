"""Fuses sums and activations that a module's own code computes by functions.

torch.fx traces the code of that module alone. The trace is used only if its steps are
those of the recording. The module then becomes an instance of a subclass whose forward()
runs the fused graph: its children, attributes and methods stay.
"""

import copy
from collections.abc import Sequence
from typing import Any

from torch import fx, nn

from ...kernels import PlannedConv2d
from ...layers.cost import CONVOLUTIONS
from ...trace import Call, Recording, Scope
from ...trace.modules import has_own_code
from .code import trace_code

# Questions about size, type or device, which the recorder does not note.
_ASKING = frozenset(('size', 'dim', 'len', 'numel'))
_ASKED = frozenset(('shape', 'ndim', 'dtype', 'device'))


class Block:
    """The code of a module as a graph, from which its fused form is made.

    Args:
        module: its module.
        graph: its code.
        scopes: its recorded calls.
        steps: for each recorded node, the number of its step in a scope.
    """

    def __init__(
        self, module: nn.Module, graph: fx.Graph, scopes: Sequence[Scope], steps: dict[str, int]
    ):
        self.module = module
        self.graph = graph
        self.scopes = scopes
        self.steps = steps

    def fused(self) -> type[nn.Module] | None:
        """A subclass whose planned convolutions compute sums and ReLUs; None if there are none."""
        graph = copy.deepcopy(self.graph)
        modules = dict(self.module.named_modules(remove_duplicate=False))
        for node in list(graph.nodes):
            if node.op == 'call_module' and type(modules[node.target]) is nn.Identity:
                _leave_out(graph, node)
        count = 0
        for node in list(graph.nodes):
            if node.op == 'call_module' and self._is_free(graph, node, modules):
                node, summed = self._take_sum(graph, node)
                count += summed + self._take_relu(graph, node, modules)
        return _fused_class(type(self.module), graph) if count else None

    def _is_free(self, graph: fx.Graph, node: Any, modules: dict[str, nn.Module]) -> bool:
        """Whether the node calls a planned convolution that is called nowhere else."""
        places = [name for name, module in modules.items() if module is modules[node.target]]
        return (
            type(modules[node.target]) is PlannedConv2d
            and not modules[node.target].relu
            and len(node.args) == 1
            and len(places) == 1
            and sum(other.target == node.target for other in graph.nodes) == 1
        )

    def _take_sum(self, graph: fx.Graph, node: Any) -> tuple[fx.Node, bool]:
        """Let a convolution add the residual, if the sum alone reads its output."""
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
        """Whether both terms have one shape, and the input is unchanged at the time of the sum."""
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


class Fused:
    """Mixin of the classes of fused modules, which are made at run time.

    Attributes:
        base: class of the module before.
        graph: code of forward().
    """

    base: type[nn.Module]
    graph: fx.Graph

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickle base and graph, since the class cannot be imported."""
        module: Any = self
        read_state = getattr(module, '__getstate__', lambda: module.__dict__)
        return _restore, (self.base, fx.GraphModule(module, self.graph)), read_state()


def _restore(base: type[nn.Module], code: fx.GraphModule) -> nn.Module:
    kind = _fused_class(base, code.graph)
    return kind.__new__(kind)


def _fused_class(base: type[nn.Module], graph: fx.Graph) -> type[nn.Module]:
    code = graph.python_code('self')
    names = dict(code.globals)
    exec(code.src, names)
    parts = dict(base=base, graph=graph, forward=names['forward'], __module__=base.__module__)
    return type(base.__name__, (Fused, base), parts)


def base_type(module: nn.Module | None) -> type:
    """The type of a module, before fusion if it is fused."""
    return module.base if isinstance(module, Fused) else type(module)


def find_block(module: nn.Module, recordings: Sequence[Recording]) -> Block | None:
    """The module's code as a graph; None if its steps are not those of the recordings."""
    graph = trace_code(module)
    scopes = [scope for recording in recordings for scope in recording.scopes_of(module)]
    if graph is None or any(len(scope.given) != 1 for scope in scopes):
        return None
    nodes = [n for n in graph.nodes if n.op.startswith('call') and n not in _numbers(graph)]
    children = dict(module.named_modules(remove_duplicate=False))
    for scope in scopes:
        if len(scope.steps) != len(nodes):
            return None
        if not all(_is_step(n, step, children) for n, step in zip(nodes, scope.steps)):
            return None
    return Block(module, graph, scopes, {node.name: i for i, node in enumerate(nodes)})


def may_fuse(module: nn.Module, scope: Scope) -> bool:
    """Whether a module's own code calls convolutions, and sums or ReLUs."""
    if 'forward' in vars(module) or module._forward_hooks or module._forward_pre_hooks:
        return False
    calls = [step for step in scope.steps if isinstance(step, Call)]
    return any(type(call.target) in CONVOLUTIONS for call in calls) and any(
        type(call.target) is nn.ReLU
        or (not call.is_module and _canonical(_called(call.target)) in ('add', 'relu'))
        for call in calls
    )


def _numbers(graph: fx.Graph) -> set[fx.Node]:
    """Nodes that yield sizes and types, or are computed from them alone."""
    found: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op not in ('call_function', 'call_method'):
            continue
        asks = _name(node) in _ASKING or (_name(node) == 'getattr' and node.args[1] in _ASKED)
        is_python = getattr(node.target, '__module__', '') == '_operator'
        if asks or (is_python and found.issuperset(node.all_input_nodes)):
            found.add(node)
    return found


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
