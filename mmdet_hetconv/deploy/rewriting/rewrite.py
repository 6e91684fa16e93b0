"""The rules by which an inference form is made of what a network was seen to do.

A norm is folded, and a ReLU or a sum fused, if it is the only reader of a convolution's
output in every call, within one module's code. Code that branches on values or sizes may
take another path on other images: nothing is folded or fused there.
"""

import copy
from collections.abc import Collection, Sequence

from mmcv.cnn import ConvModule
from torch import nn

from ...kernels import Plan, PlannedConv2d
from ...layers import HetConv2d
from ...layers.cost import CONVOLUTIONS, Convolution
from ...trace import Call, Recording
from ...trace.modules import count_places, has_own_code
from .blocks import Block, find_block, may_fuse
from .changes import Changes
from .conv_module import keep_whole
from .fold import can_fold, fold


class Rewriter:
    """Makes the inference form of a recorded model.

    Attributes:
        units: names of what it can change: convolutions with the modules behind them,
            and modules with fusible code.
        folded: by name, convolutions with folded norms. They are copies, since another
            model may hold the same modules, as a GraphModule does.
    """

    def __init__(self, model: nn.Module, recordings: Sequence[Recording]):
        self.model = model
        self.recordings = recordings
        self.changes = Changes()
        self.folded: dict[str, Convolution] = {}
        self._places = count_places(model)
        self._followers: dict[nn.Module, nn.Module | None] = {}
        self._touched = set().union(*(recording.touched for recording in recordings))
        self._branching = set().union(*(recording.branching for recording in recordings))
        names = {module: name for name, module in model.named_modules()}
        self.convs = {
            name: module
            for module, name in names.items()
            if type(module) in CONVOLUTIONS
            and not has_own_code(module)
            and not self._is_touched(module)
            and (not recordings or self._calls(module))
        }
        self.blocks: dict[str, Block] = {}
        for module, name in names.items():
            scopes = [scope for recording in recordings for scope in recording.scopes_of(module)]
            if scopes and may_fuse(module, scopes[0]):
                block = find_block(module, recordings)
                if block is not None:
                    self.blocks[name or type(model).__name__] = block
        self.units = [*self.convs, *self.blocks]

    def _is_touched(self, module: nn.Module) -> bool:
        """Whether code of another module uses its parameters or buffers."""
        return not self._touched.isdisjoint(module.modules())

    def _calls(self, module: nn.Module) -> list[Call]:
        return [call for recording in self.recordings for call in recording.calls_of(module)]

    def undo(self) -> None:
        """Restore the original model."""
        self.changes.undo()
        self.folded.clear()

    def fold_norms(
        self, skip: Collection[str] = (), norms: Collection[nn.Module] | None = None
    ) -> None:
        """Fold batch norms, by default all that can be; nn.Identity takes their places."""
        for name, conv in self.convs.items():
            norm = self._follower(conv)
            if name in skip or norm is None or not can_fold(norm) or has_own_code(norm):
                continue
            if norms is not None and norm not in norms:
                continue
            self.folded[name] = copy.deepcopy(conv)
            fold(self.folded[name], norm)
            self._put(conv, self.folded[name])
            self._take_out(norm)

    def plan_convs(self, plan: Plan, skip: Collection[str] = ()) -> nn.Module:
        """Replace convolutions and what follows them; returns the model."""
        for name, conv in self.convs.items():
            if name in skip or not is_plannable(conv):
                continue
            # The activation follows the norm if that is folded.
            norm = self._follower(conv) if name in self.folded else None
            act = self._follower(norm or conv)
            planned = PlannedConv2d(self.folded.get(name, conv), plan)
            if type(act) is nn.ReLU and not has_own_code(act):
                planned.relu = True
                self._take_out(act)
            self._put(conv, planned)
            if conv is self.model:
                return planned
        for name, block in self.blocks.items():
            fused = None if name in skip else block.fused()
            if fused is not None:
                self.changes.set(block.module, '__class__', fused)
        return self.model

    def _put(self, old: nn.Module, new: nn.Module) -> None:
        for parent, name in self._places.get(old, ()):
            self.changes.set(parent, name, new)

    def _take_out(self, module: nn.Module) -> None:
        self._put(module, nn.Identity())
        for parent, _ in self._places[module]:
            if isinstance(parent, ConvModule):
                keep_whole(parent, self.changes)

    def _follower(self, module: nn.Module) -> nn.Module | None:
        """The module that is the only reader of another's outputs and reads nothing else."""
        if module not in self._followers:
            self._followers[module] = self._find_follower(module)
        return self._followers[module]

    def _find_follower(self, module: nn.Module) -> nn.Module | None:
        calls = self._calls(module)
        found: set[nn.Module] = set()
        for recording in self.recordings:
            for call in recording.calls_of(module):
                reader = recording.reader(call)
                if reader is None or not reader.is_module or len(reader.inputs) != 1:
                    return None
                if call.scope.module in self._branching:
                    return None
                found.add(reader.target)
        if len(found) != 1:
            return None
        (follower,) = found
        is_pair = len(self._calls(follower)) == len(calls) and not self._is_touched(follower)
        return follower if is_pair and follower in self._places else None


def is_plannable(module: nn.Module) -> bool:
    """Whether a convolution has a form whose kernel a plan chooses."""
    if not isinstance(module, HetConv2d) and (type(module) is not nn.Conv2d or module.groups != 1):
        return False
    return module.padding_mode == 'zeros' and not isinstance(module.padding, str)
