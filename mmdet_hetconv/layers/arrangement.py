"""The order of channels in layers whose blocks are not contiguous."""

import torch
from torch import Tensor

from .functional import residue_order

Order = Tensor | None


def first_orders(
    arrangement: str, in_channels: int, out_channels: int, p: int
) -> tuple[Order, Order]:
    """The channel orders of a freshly made layer.

    x[:, input_order] has blocked channels; so has the output before
    [:, output_order]. None is the order that changes nothing.

    Shape:
        returns (in_channels,) and (out_channels,), int64.
    """
    if arrangement == 'shifted':
        order = residue_order(in_channels, p)
        return order, residue_order(out_channels, p).argsort()
    if arrangement == 'permuted':
        return torch.arange(in_channels), torch.arange(out_channels)
    return None, None


def take_channels(x: Tensor, order: Tensor) -> Tensor:
    """x[:, order], in the memory format of x."""
    if x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last):
        return x.movedim(1, 3).index_select(3, order).movedim(3, 1)
    return x.index_select(-3, order)


def why_not_loaded(arrangement: str, first: Order, theirs: Order) -> str | None:
    """Why weights with this channel order would compute another function; None if not.

    Args:
        first: the layer's order before anything was loaded.
        theirs: that of the weights.
    """
    if first is None or theirs is None:
        same = first is theirs
    elif arrangement == 'permuted':
        if torch.equal(theirs.cpu().sort().values, first):
            return None
        return f'no permutation of {len(first)} channels'
    else:
        same = torch.equal(first, theirs.cpu())
    if same:
        return None
    return f"the checkpoint's channel arrangement is not this layer's, {arrangement=}"
