"""The paper's definition, written as slowly and as plainly as possible."""

import torch.nn.functional as F
from torch import Tensor


def has_large_kernel(n: int, m: int, filters: int, channels: int, p: int, arrangement: str) -> bool:
    """Whether filter n has its K x K kernel on channel m."""
    if arrangement == 'shifted':
        return (m - n) % p == 0
    return m // (channels // p) == n // (filters // p)


def heterogeneous_convolution(
    x: Tensor,
    large: dict[tuple[int, int], Tensor],
    small: dict[tuple[int, int], Tensor],
    bias: Tensor | None,
    kernel_size: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    padding_mode: str,
) -> Tensor:
    """Sum the contributions of one channel to one filter at a time.

    Args:
        x: (B, M, H, W), float64.
        large: (Kh, Kw) kernels by (filter, channel).
        small: scalars, 1 x 1 kernels by (filter, channel).
    """
    mode = 'constant' if padding_mode == 'zeros' else padding_mode
    x = F.pad(x, (padding[1], padding[1], padding[0], padding[0]), mode=mode)
    kh, kw = kernel_size
    span = [d * (k - 1) + 1 for k, d in zip(kernel_size, dilation)]
    height = (x.shape[2] - span[0]) // stride[0] + 1
    width = (x.shape[3] - span[1]) // stride[1] + 1
    filters = 1 + max(n for n, _ in [*large, *small])
    out = x.new_zeros(x.shape[0], filters, height, width)

    def window(m, row, column):
        top, left = row * dilation[0], column * dilation[1]
        bottom = top + stride[0] * (height - 1) + 1
        right = left + stride[1] * (width - 1) + 1
        return x[:, m, top : bottom : stride[0], left : right : stride[1]]

    for (n, m), kernel in large.items():
        for row in range(kh):
            for column in range(kw):
                out[:, n] += kernel[row, column] * window(m, row, column)
    for (n, m), weight in small.items():
        out[:, n] += weight * window(m, kh // 2, kw // 2)
    if bias is not None:
        out += bias[:, None, None]
    return out
