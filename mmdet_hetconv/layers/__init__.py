"""The operators: HetConv and the paper's rivals. torch and mmengine only."""

from .conv_types import build_depth_pointwise_conv, build_group_pointwise_conv, build_het_conv
from .functional import (
    expand_foreign,
    merge_to_dense,
    pointwise_approximation,
    project_dense,
    residue_order,
    take_foreign,
    take_own,
    taps_per_filter,
)
from .group_pointwise import DepthPointwiseConv2d, GroupPointwiseConv2d, group_pointwise_taps
from .hetconv import HetConv2d
from .learning_rate import HetConvOptimWrapperConstructor
from .shape import why_not_heterogeneous
from .two_convolutions import from_two_convolutions

__all__ = [
    'DepthPointwiseConv2d',
    'GroupPointwiseConv2d',
    'HetConv2d',
    'HetConvOptimWrapperConstructor',
    'build_depth_pointwise_conv',
    'build_group_pointwise_conv',
    'build_het_conv',
    'expand_foreign',
    'from_two_convolutions',
    'group_pointwise_taps',
    'merge_to_dense',
    'pointwise_approximation',
    'project_dense',
    'residue_order',
    'take_foreign',
    'take_own',
    'taps_per_filter',
    'why_not_heterogeneous',
]
