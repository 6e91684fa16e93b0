"""The modules of a detector that put out predictions."""

from torch import nn

from ..trace import is_detector

# Parts of a detector whose outputs are feature maps, not predictions.
_FEATURES = ('backbone', 'neck', 'data_preprocessor')


def find_heads(model: nn.Module) -> list[nn.Module]:
    """A detector's heads, which it calls one by one; none of another model."""
    if not is_detector(model):
        return []
    found = []
    for name, child in model.named_children():
        if name not in _FEATURES:
            found += [child, *child.children()]
    return found
