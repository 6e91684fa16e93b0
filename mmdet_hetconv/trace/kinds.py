"""Kinds of modules and functions by which the rules of convert and deploy decide."""

from mmengine.model.utils import _BatchNormXd
from torch import nn

from ..kernels import PlannedConv2d
from ..layers import GroupPointwiseConv2d, HetConv2d

# Modules that count as one operation although they have children.
OPERATIONS = (HetConv2d, GroupPointwiseConv2d, PlannedConv2d)
# Subclasses may do more, as timm's BatchNormAct2d does.
NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm, _BatchNormXd)
# Functions that order or select by value.
SELECTING = frozenset(
    ('topk', 'sort', 'argsort', 'argmax', 'argmin', 'nonzero', 'unique', 'multinomial')
    + ('masked_select', 'kthvalue', 'nms', 'batched_nms', 'searchsorted', 'bucketize')
)
