"""Checkpoints of the public HetConv, gwc(x) + pwc(x), for HetConv2d.

    y = groupwise(x) + pointwise(x),  groupwise: K x K in p groups, pointwise: full 1 x 1

is HetConv with one redundant weight: the 1 x 1 kernels on a filter's own block add to the
centre taps there. Source: github.com/irvinxav/Efficient-HetConv-Heterogeneous-Kernel-Based-
Convolutions, and its copies.
"""

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor

from .functional import take_foreign, take_own


def from_two_convolutions(
    state_dict: Mapping[str, Tensor], groupwise: str = 'gwc', pointwise: str = 'pwc'
) -> dict[str, Tensor]:
    """The state dict of the same model with a HetConv2d for each pair of convolutions.

    Args:
        state_dict: of a model whose layers compute gwc(x) + pwc(x); other entries stay.
        groupwise, pointwise: names of the two convolutions in such a layer.

    Returns:
        dict: loads into HetConv2d layers with p = groups of the group-wise convolution, the
        same stride and dilation, padding for the group-wise convolution, and a bias if
        either convolution has one.

    Raises:
        ValueError: there is no such pair; the 1 x 1 convolution does not see all channels.

    Example:
        >>> import torch
        >>> from mmdet_hetconv.layers import HetConv2d
        >>> public = {'gwc.weight': torch.rand(8, 2, 3, 3), 'pwc.weight': torch.rand(8, 4, 1, 1)}
        >>> HetConv2d(4, 8, 3, p=2, bias=False).load_state_dict(from_two_convolutions(public))
        <All keys matched successfully>
    """
    result = dict(state_dict)
    ending = f'{groupwise}.weight'
    layers = [
        key.removesuffix(ending)
        for key in state_dict
        if (key == ending or key.endswith(f'.{ending}'))
        and f'{key.removesuffix(ending)}{pointwise}.weight' in state_dict
    ]
    if not layers:
        raise ValueError(
            f'no layer has both {groupwise}.weight and {pointwise}.weight among the '
            f'{len(state_dict)} entries'
        )
    for layer in layers:
        grouped = result.pop(f'{layer}{groupwise}.weight')
        full = result.pop(f'{layer}{pointwise}.weight')
        biases = [result.pop(f'{layer}{name}.bias', None) for name in (groupwise, pointwise)]
        (filters, own), channels = grouped.shape[:2], full.shape[1]
        p = channels // own
        if channels % own or filters % p or tuple(full.shape) != (filters, channels, 1, 1):
            raise ValueError(
                f'{layer}{pointwise}.weight of shape {tuple(full.shape)} is no full 1 x 1 '
                f'convolution beside {layer}{groupwise}.weight of shape {tuple(grouped.shape)}'
            )
        top, left = (size // 2 for size in grouped.shape[2:])
        centre = F.pad(take_own(full, p), (left, left, top, top))
        result[f'{layer}grouped.weight'] = grouped + centre
        if p > 1:
            result[f'{layer}pointwise.weight'] = take_foreign(full, p)
        present = [bias for bias in biases if bias is not None]
        if present:
            result[f'{layer}grouped.bias'] = sum(present[1:], present[0])
    return result
