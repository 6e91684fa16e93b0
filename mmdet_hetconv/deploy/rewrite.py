"""The rules by which an inference form is made of what a network was seen to do.

A norm is folded, and a ReLU or a sum taken over, where it alone reads the output of
one convolution, whenever that is called, in one module's code.
"""

import copy
from collections.abc import Collection, Sequence

from mmcv.cnn import ConvModule
from torch import nn

from ..kernels import Plan, PlannedConv2d
from ..layers import HetConv2d
from ..layers.cost import CONVOLUTIONS, Convolution
from ..trace.record import Call, Recording, count_places, has_own_code
from .blocks import Block, find_block
from .changes import Changes
from .conv_module import keep_whole
from .fold import can_fold, fold


class Rewriter:
    """Makes the inference form of a model that was seen in some runs.

    Attributes:
        units: what it would change, by name: convolutions with what follows them, and
            modules whose code is exchanged.
        folded: the convolutions that norms became part of, by name. They are copies:
            another model may hold the same modules, as a GraphModule does.
    """

    def __init__(self, model: nn.Module, recordings: Sequence[Recording]):
        self.model = model
        self.recordings = recordings
        self.changes = Changes()
        self.folded: dict[str, Convolution] = {}
        names = {module: name for name, module in model.named_modules()}
        touched = {module for recording in recordings for module in recording.touched}
        self.convs = {
            name: module
            for module, name in names.items()
            if type(module) in CONVOLUTIONS
            and not has_own_code(module)
            and not touched.intersection(module.modules())
            and (not recordings or self._calls(module))
        }
        self.blocks: dict[str, Block] = {}
        for module, name in names.items():
            if name and any(recording.scopes_of(module) for recording in recordings):
                block = find_block(module, recordings)
                if block is not None:
                    self.blocks[name] = block
        self.units = [*self.convs, *self.blocks]

    def _calls(self, module: nn.Module) -> list[Call]:
        return [call for recording in self.recordings for call in recording.calls_of(module)]

    def undo(self) -> None:
        """Leave the model as it came."""
        self.changes.undo()
        self.folded.clear()

    def fold_norms(self, skip: Collection[str] = ()) -> None:
        """Fold batch norms; nn.Identity takes their places."""
        places = count_places(self.model)
        for name, conv in self.convs.items():
            norm = self._follower(conv)
            if norm is None or name in skip or not can_fold(norm) or has_own_code(norm):
                continue
            self.folded[name] = copy.deepcopy(conv)
            fold(self.folded[name], norm)
            self.changes.exchange(places[conv], self.folded[name])
            self._take_out(norm)

    def plan_convs(self, plan: Plan, skip: Collection[str] = ()) -> nn.Module:
        """Exchange convolutions and what follows them; returns the model."""
        places = count_places(self.model)
        for name, conv in self.convs.items():
            if name in skip or not is_plannable(conv):
                continue
            # Seen before the exchange, behind a norm if that is folded.
            norm = self._follower(conv) if name in self.folded else None
            act = self._follower(norm or conv)
            present = self.folded.get(name, conv)
            planned = PlannedConv2d(present, plan)
            if type(act) is nn.ReLU and not has_own_code(act):
                planned.relu = True
                self._take_out(act)
            self.changes.exchange(places.get(present, ()), planned)
            if conv is self.model:
                return planned
        for name, block in self.blocks.items():
            fused = None if name in skip else block.fused()
            if fused is not None:
                self.changes.exchange(places.get(block.module, ()), fused)
        return self.model

    def _take_out(self, module: nn.Module) -> None:
        places = count_places(self.model)[module]
        self.changes.exchange(places, nn.Identity())
        for parent, _ in places:
            if isinstance(parent, ConvModule):
                keep_whole(parent, self.changes)

    def _follower(self, module: nn.Module) -> nn.Module | None:
        """The module that alone reads whatever another one puts out, and nothing else."""
        calls = self._calls(module)
        found: set[nn.Module] = set()
        for recording in self.recordings:
            for call in recording.calls_of(module):
                reader = recording.reader(call)
                if reader is None or not reader.is_module or len(reader.inputs) != 1:
                    return None
                found.add(reader.target)
        if len(found) != 1:
            return None
        (follower,) = found
        return follower if len(self._calls(follower)) == len(calls) else None


def is_plannable(module: nn.Module) -> bool:
    """Whether a convolution has a form whose kernel a plan chooses."""
    if not isinstance(module, HetConv2d) and (type(module) is not nn.Conv2d or module.groups != 1):
        return False
    return module.padding_mode == 'zeros' and not isinstance(module.padding, str)
