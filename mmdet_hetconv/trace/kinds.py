"""Modules and operations that mean something to those who ask a recording."""

from mmengine.model.utils import _BatchNormXd
from torch import nn

# Subclasses may do more, as timm's BatchNormAct2d does.
NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm, _BatchNormXd)
# What orders or selects by value.
SELECTING = frozenset(
    ('topk', 'sort', 'argsort', 'argmax', 'argmin', 'nonzero', 'unique', 'multinomial')
    + ('masked_select', 'kthvalue', 'nms', 'batched_nms', 'searchsorted', 'bucketize')
)
