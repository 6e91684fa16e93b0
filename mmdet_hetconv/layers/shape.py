"""Arguments and shapes that a HetConv layer can have."""

from collections.abc import Sequence
from typing import Literal, Protocol, get_args

from torch.nn.modules.utils import _pair

ARRANGEMENTS = ('blocked', 'shifted', 'permuted')
# Of an image: grey, colour, and one more for a mask or infrared.
IMAGE_CHANNELS = 4
# nn.Conv2d's.
PaddingMode = Literal['zeros', 'reflect', 'replicate', 'circular']
PADDING_MODES: tuple[str, ...] = get_args(PaddingMode)


class ConvShape(Protocol):
    """The shape attributes of an nn.Conv2d."""

    in_channels: int
    out_channels: int
    groups: int

    @property
    def kernel_size(self) -> tuple[int, ...]: ...


def check_p(p: int, arrangement: str) -> None:
    """Raise ValueError for an invalid p or arrangement."""
    if not isinstance(p, int) or isinstance(p, bool) or p < 1:
        raise ValueError(f'HetConv: p must be an integer >= 1, got p={p!r}')
    if arrangement not in ARRANGEMENTS:
        raise ValueError(f'HetConv: arrangement must be one of {ARRANGEMENTS}, got {arrangement!r}')


def is_stem(conv: ConvShape) -> bool:
    """Whether this looks like a convolution on an image: few input channels, many outputs."""
    return conv.in_channels <= IMAGE_CHANNELS and conv.out_channels >= 2 * conv.in_channels


def why_not_heterogeneous(conv: ConvShape, p: int) -> str | None:
    """Why a convolution of this shape cannot be heterogeneous, or None."""
    if conv.kernel_size == (1, 1):
        return 'the kernel is 1 x 1'
    reason = why_not_blocks(conv, p)
    if reason is None and is_stem(conv):
        return f'in_channels={conv.in_channels} are those of an image'
    return reason


def why_not_blocks(conv: ConvShape, p: int) -> str | None:
    """Why a layer cannot be divided into p blocks, whatever its kernel size; None if it can."""
    if conv.groups != 1:
        return f'it has groups={conv.groups}'
    if not all(k % 2 for k in conv.kernel_size):
        return f'kernel_size={conv.kernel_size} has no centre'
    for name in ('in_channels', 'out_channels'):
        channels = getattr(conv, name)
        if channels % p:
            return f'{name}={channels} is not a multiple of p={p}'
    return None


def as_pair(value: int | Sequence[int]) -> tuple[int, int]:
    """A pair from a number, or from a sequence of one or two, as F.conv2d takes them.

    Raises:
        ValueError: there are more, or none.
    """
    numbers = _pair(value)
    if len(numbers) not in (1, 2):
        raise ValueError(f'HetConv: {value} is neither one number nor two')
    return numbers[0], numbers[-1]


def numeric_padding(
    padding: int | Sequence[int] | str,
    stride: tuple[int, int],
    kernel_size: tuple[int, int],
    dilation: tuple[int, int],
) -> tuple[int, int]:
    """nn.Conv2d's padding argument as two numbers.

    Raises:
        ValueError: another word than 'same' and 'valid'; 'same' with a
            stride.
    """
    if padding == 'valid':
        return (0, 0)
    if padding == 'same':
        if stride != (1, 1):
            raise ValueError(f"HetConv: padding='same' needs stride 1, got {stride}")
        top, left = (d * (k // 2) for k, d in zip(kernel_size, dilation))
        return top, left
    if isinstance(padding, str):
        raise ValueError(f"HetConv: padding must be numbers, 'same' or 'valid', got {padding!r}")
    return as_pair(padding)
