"""Weights in the order in which the compiled kernel reads them."""

import torch
import torch.nn.functional as F
from torch import Tensor

# Blocks narrower than this many filters are merged: a vector has 8.
NARROWEST = 8


def merge_blocks(filters: int, p: int, channels: int = 0, per_word: int = 1) -> int:
    """The largest divisor of p whose blocks fill a vector, and words.

    Args:
        channels (int): input channels.
        per_word (int): of them in a word of 32 bits.
    """
    for part in range(p, 1, -1):
        fills = filters // part >= NARROWEST and channels // part % per_word == 0
        if p % part == 0 and fills:
            return part
    return 1


def pack_panels(
    grouped: Tensor, centre: Tensor, *, p: int, widest: int, per_word: int
) -> tuple[Tensor, Tensor]:
    """Weights in the order in which the kernel reads them.

    A panel is a run of filters of one block; for each channel its filters
    lie side by side, padded with zeros to the panel's width: first all
    channels at the centre, then the block's channels tap by tap. Some channels
    make a word of 32 bits, the last one filled with zeros.

    Args:
        widest (int): filters of the widest panel.
        per_word (int): channels of a word.

    Shape:
        grouped: (N, M/p, Kh, Kw), its centre is not used;
        centre: (N, M, 1, 1); returns the packed weights (any,) and the
        panels (panels, 5): first filter, filters, width, first word of the
        block's channels, offset into the packed weights in words.
    """

    def fill(rows: Tensor) -> Tensor:
        return F.pad(rows, (0, -rows.shape[-1] % per_word))

    filters, m, kh, kw = grouped.shape
    taps = [t for t in range(kh * kw) if t != kh // 2 * kw + kw // 2]
    own = fill(grouped.flatten(2)[:, :, taps].transpose(1, 2)).flatten(1)
    rows = torch.cat([fill(centre.flatten(1)), own], dim=1)
    packed, panels, offset = [], [], 0
    block = filters // p
    for b in range(p):
        first, end = b * block, (b + 1) * block
        while first < end:
            left = end - first
            width = next((w for w in (widest, widest // 2) if w <= left), NARROWEST)
            used = min(width, left)
            panel = F.pad(rows[first : first + used], (0, 0, 0, width - used))
            words = panel.unflatten(1, (-1, per_word)).transpose(0, 1)
            packed.append(words.reshape(-1))
            panels.append([first, used, width, b * m // per_word, offset])
            offset += packed[-1].numel() // per_word
            first += used
    return torch.cat(packed), torch.tensor(panels, dtype=torch.int64)
