"""Where the heads of a detector are."""

from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from torch import nn

from ..trace import is_detector

# Parts of a detector whose outputs are feature maps, not predictions.
_FEATURES = ('backbone', 'neck', 'data_preprocessor')


def find_heads(model: nn.Module) -> list[nn.Module]:
    """The heads of a detector, in the order of its calls; empty for other models."""
    if not is_detector(model):
        return []
    found = []
    for name, child in model.named_children():
        if name not in _FEATURES:
            found += [child, *child.children()]
    return found


def dense_head(detector: nn.Module) -> tuple[str, BaseDenseHead]:
    """Name and module of the dense head: it turns the neck's maps into raw outputs.

    Raises:
        ValueError: there is none, or mmdet feeds or decodes it in another way.
    """
    name = 'rpn_head' if hasattr(detector, 'rpn_head') else 'bbox_head'
    head = getattr(detector, name, None)
    kind = type(detector).__name__
    if head is None:
        raise ValueError(f'{kind} has no dense head: a graph needs a rpn_head or a bbox_head')
    if not isinstance(head, BaseDenseHead) or type(head).predict is not BaseDenseHead.predict:
        raise ValueError(
            f'{kind}: its {type(head).__name__} does not turn feature maps into raw '
            'outputs as a dense head does'
        )
    return name, head
