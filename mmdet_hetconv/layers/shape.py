"""Which arguments a HetConv layer takes, and which shapes can be one."""

from torch import nn
from torch.nn.modules.utils import _pair

ARRANGEMENTS = ('blocked', 'shifted', 'permuted')
PADDING_MODES = ('zeros', 'reflect', 'replicate', 'circular')  # nn.Conv2d's


def check_p(p: int, arrangement: str) -> None:
    """Raise ValueError for a p or an arrangement that means nothing."""
    if not isinstance(p, int) or isinstance(p, bool) or p < 1:
        raise ValueError(f'HetConv: p must be an integer >= 1, got p={p!r}')
    if arrangement not in ARRANGEMENTS:
        raise ValueError(
            'HetConv: arrangement must be one of '
            f'{ARRANGEMENTS}, got {arrangement!r}'
        )


def why_not_heterogeneous(conv: nn.Module, p: int) -> str | None:
    """Why a convolution of this shape cannot be heterogeneous, or None.

    Args:
        conv: nn.Conv2d, or what has its attributes.
    """
    if conv.kernel_size == (1, 1):
        return 'the kernel is 1 x 1'
    return why_not_blocks(conv, p)


def why_not_blocks(conv: nn.Module, p: int) -> str | None:
    """Why a layer of any kernel size does not fall into p blocks, or None."""
    if conv.groups != 1:
        return f'it has groups={conv.groups}'
    if not all(k % 2 for k in conv.kernel_size):
        return f'kernel_size={conv.kernel_size} has no centre'
    for name in ('in_channels', 'out_channels'):
        channels = getattr(conv, name)
        if channels % p:
            return f'{name}={channels} is not a multiple of p={p}'
    return None


def numeric_padding(padding, stride, kernel_size, dilation) -> tuple[int, int]:
    """nn.Conv2d's padding argument as two numbers."""
    if padding == 'valid':
        return (0, 0)
    if padding == 'same':
        if stride != (1, 1):
            raise ValueError(
                f"HetConv: padding='same' needs stride 1, got {stride}"
            )
        return tuple(d * (k // 2) for k, d in zip(kernel_size, dilation))
    if isinstance(padding, str):
        raise ValueError(
            "HetConv: padding must be numbers, 'same' or "
            f"'valid', got {padding!r}"
        )
    return _pair(padding)
