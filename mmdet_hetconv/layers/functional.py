"""Tensor algebra of heterogeneous-kernel convolution.

A layer has M input channels, N filters, a kernel of Kh x Kw taps and a
number p. Channels and filters fall into p blocks of M/p and N/p. A filter has its
Kh x Kw kernels on the channels of its *own* block and 1 x 1 kernels, at the
centre tap, on the channels of the p - 1 *foreign* blocks.

Source: Singh et al., "HetConv: Heterogeneous Kernel-Based Convolutions for
Deep CNNs", CVPR 2019, section 3.

Two tensors hold a layer's weights, without any redundant entry:

- grouped: (N, M/p, Kh, Kw), the own block, as nn.Conv2d(groups=p) has it;
- foreign: (N, M - M/p, 1, 1), the foreign blocks in ascending order.

Here block b is the channels b*M/p ... (b+1)*M/p - 1, and the same for the
filters ("blocked"). The paper's "shifted" arrangement, where filter n has its
Kh x Kw kernel on channel m iff (m - n) mod p == 0, is the blocked one on
permuted channels and filters, see :func:`residue_order`.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

# How the values at two neighbouring pixels of a feature map correlate, see
# pointwise_approximation().
NEIGHBOUR_CORRELATION = 0.8


def residue_order(channels: int, p: int) -> Tensor:
    """Channel numbers sorted by their residue modulo p.

    It turns the paper's lattice into contiguous blocks: block b of the
    sorted channels is {c : c mod p == b}.

    Shape:
        returns (channels,), int64.
    """
    return torch.arange(channels).view(channels // p, p).t().reshape(-1)


def expand_foreign(foreign: Tensor, p: int) -> Tensor:
    """Place foreign weights in an (N, M) matrix whose own blocks are zero.

    Read block by block, row after row, a p x p matrix of blocks is a diagonal
    block followed by p others, p - 1 times, and one last diagonal block. So
    one zero block in front of every p foreign ones puts all in their places:
    no index, no mask, and the gradient is exact.

    Shape:
        foreign: (N, M - M/p, 1, 1); returns (N, M, 1, 1).
    """
    filters, columns = foreign.shape[:2]
    n, m = filters // p, columns // (p - 1)  # of one block
    blocks = foreign.view(p, n, p - 1, m).transpose(1, 2)
    blocks = blocks.reshape(p - 1, p, n, m)
    blocks = F.pad(blocks, (0, 0, 0, 0, 1, 0)).flatten(0, 1)
    blocks = F.pad(blocks, (0, 0, 0, 0, 0, 1)).view(p, p, n, m)
    return blocks.transpose(1, 2).reshape(filters, p * m, 1, 1)


def take_foreign(matrix: Tensor, p: int) -> Tensor:
    """The inverse of :func:`expand_foreign`; what is in own blocks is lost.

    Shape:
        matrix: (N, M, 1, 1); returns (N, M - M/p, 1, 1).
    """
    filters, channels = matrix.shape[:2]
    n, m = filters // p, channels // p  # of one block
    blocks = matrix.reshape(p, n, p, m).transpose(1, 2).reshape(p * p, n, m)
    blocks = blocks[:-1].view(p - 1, p + 1, n, m)[:, 1:]
    blocks = blocks.reshape(p, p - 1, n, m).transpose(1, 2)
    return blocks.reshape(filters, (p - 1) * m, 1, 1)


def take_own(weight: Tensor, p: int) -> Tensor:
    """The own blocks of a dense weight.

    Shape:
        weight: (N, M, Kh, Kw); returns (N, M/p, Kh, Kw).
    """
    filters, channels, *taps = weight.shape
    blocks = weight.reshape(p, filters // p, p, channels // p, *taps)
    own = torch.diagonal(blocks, dim1=0, dim2=2)  # (N/p, M/p, Kh, Kw, p)
    return own.movedim(-1, 0).reshape(filters, channels // p, *taps)


def pointwise_approximation(weight: Tensor, correlation: float = NEIGHBOUR_CORRELATION) -> Tensor:
    """The point-wise weight that stands in best for a Kh x Kw kernel.

    For a stationary feature map x whose values rows dy and columns dx apart
    have ``E[x_t x_0] = r**(|dy| + |dx|) E[x_0^2]``, the v that minimises
    ``E[(sum_t w_t x_t - v x_0)^2]`` is
    ``v = sum_t w_t r**(|dy_t| + |dx_t|)``. correlation=0 gives the centre tap,
    correlation=1 the sum of all taps.

    The prior is the separable Markov model of images: on feature maps of
    trained networks, diagonal neighbours correlate about as the product of
    the other two. Products are not centred here, since nothing makes up for
    a shifted mean when weights are merely loaded. The best r is 0.8 to 0.9
    then, and 0.7 to 0.8 where batch-norm statistics are estimated anew:
    benchmarks/conversion_correlation.py, on CIFAR-10 and on photos.

    Shape:
        weight: (N, M, Kh, Kw); returns (N, M, 1, 1).
    """
    kh, kw = weight.shape[-2:]
    rows = torch.arange(kh, device=weight.device) - kh // 2
    columns = torch.arange(kw, device=weight.device) - kw // 2
    distance = rows.abs()[:, None] + columns.abs()
    factors = correlation ** distance.to(weight.dtype)
    return (weight * factors).sum(dim=(-2, -1), keepdim=True)


def project_dense(weight: Tensor, p: int) -> tuple[Tensor, Tensor]:
    """Heterogeneous weights that stand in for a dense weight, free of data.

    The own block keeps its kernels; a foreign block's kernels become
    :func:`pointwise_approximation`.

    Shape:
        weight: (N, M, Kh, Kw); returns (N, M/p, Kh, Kw) and
        (N, M - M/p, 1, 1).
    """
    return take_own(weight, p), take_foreign(pointwise_approximation(weight), p)


def merge_to_dense(grouped: Tensor, foreign: Tensor, p: int) -> Tensor:
    """The dense weight that computes the same function.

    Shape:
        grouped: (N, M/p, Kh, Kw); foreign: (N, M - M/p, 1, 1);
        returns (N, M, Kh, Kw).
    """
    filters, m, kh, kw = grouped.shape
    own = torch.diag_embed(
        grouped.view(p, filters // p, m, kh, kw).movedim(0, -1), dim1=0, dim2=2
    )  # (p, N/p, p, M/p, Kh, Kw)
    own = own.reshape(filters, p * m, kh, kw)
    point = expand_foreign(foreign, p)
    return own + F.pad(point, (kw // 2, kw // 2, kh // 2, kh // 2))


def taps_per_filter(in_channels: int, kernel_size: Sequence[int], p: int) -> int:
    """Weights of one filter: Kh Kw M/p + M - M/p.

    It is also the multiply-adds (MACs) per output value. p=1 gives the
    standard convolution. Source: CVPR 2019, section 3.2.
    """
    own = in_channels // p
    return kernel_size[0] * kernel_size[1] * own + in_channels - own


def output_size(
    size: Sequence[int],
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> tuple[int, int]:
    """Height and width of a convolution's output, as nn.Conv2d states it.

    All arguments are (height, width) pairs, `size` that of the input.
    """
    height, width = (
        (n + 2 * a - d * (k - 1) - 1) // s + 1
        for n, k, s, a, d in zip(size, kernel_size, stride, padding, dilation)
    )
    return height, width
