"""HetConv2d of any arguments against the paper's definition in float64."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mmdet_hetconv.layers import HetConv2d
from mmdet_hetconv.layers.shape import why_not_blocks

from .oracle import heterogeneous_convolution
from .test_hetconv import kernels_of

pairs = st.tuples


@st.composite
def layers(draw):
    """Arguments that fit each other, and a size that gives an output."""
    p = draw(st.sampled_from([1, 2, 3, 4]))
    kernel = draw(pairs(*[st.sampled_from([1, 3, 5])] * 2))
    dilation = draw(pairs(*[st.integers(1, 3)] * 2))
    padding = draw(pairs(*[st.integers(0, 4)] * 2))
    span = [d * (k - 1) + 1 for k, d in zip(kernel, dilation)]
    mode = draw(st.sampled_from(['zeros', 'reflect', 'replicate', 'circular']))
    size = [
        # Reflection takes less than an edge, turning around at most it.
        draw(st.integers(max(1, s - 2 * a, a + 1), max(s, a + 1) + 6))
        for s, a in zip(span, padding)
    ]
    return dict(
        in_channels=p * draw(st.integers(1, 3)),
        out_channels=p * draw(st.integers(1, 3)),
        kernel_size=kernel,
        stride=draw(pairs(*[st.integers(1, 3)] * 2)),
        padding=padding,
        dilation=dilation,
        padding_mode=mode,
        bias=draw(st.booleans()),
        p=p,
        arrangement=draw(st.sampled_from(['blocked', 'shifted'])),
    ), (draw(st.integers(1, 2)), *size)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(layers())
def test_any_layer(drawn):
    arguments, (batch, *size) = drawn
    torch.manual_seed(0)
    layer = HetConv2d(**arguments).double()
    x = torch.randn(batch, layer.in_channels, *size).double()
    x.requires_grad_()
    y = layer(x)
    expected = heterogeneous_convolution(
        x,
        *kernels_of(layer),
        layer.kernel_size,
        layer.stride,
        layer.padding,
        layer.dilation,
        layer.padding_mode,
    )
    torch.testing.assert_close(y, expected, rtol=1e-9, atol=1e-9)
    # The same weights give the same gradient, seen from the input.
    mine, theirs = (torch.autograd.grad(out.square().sum(), x)[0] for out in (y, expected))
    torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-8)


anything = st.one_of(
    st.integers(-3, 9),
    st.none(),
    st.booleans(),
    st.floats(-2, 5),
    st.text(max_size=3),
    st.lists(st.integers(0, 4), max_size=3),
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    channels=st.integers(1, 12),
    filters=st.integers(1, 12),
    kernel=st.integers(1, 6),
    p=anything,
    arrangement=st.sampled_from(['blocked', 'shifted', 'blokced', None, 4]),
)
def test_any_part(channels, filters, kernel, p, arrangement):
    """A ValueError that names the value, or a layer that computes."""
    try:
        layer = HetConv2d(channels, filters, kernel, p=p, arrangement=arrangement)
    except ValueError as error:
        assert 'HetConv' in str(error)
        if not isinstance(p, int) or isinstance(p, bool) or p < 1:
            assert f'p={p!r}' in str(error)
        elif arrangement not in ('blocked', 'shifted'):
            assert f'{arrangement!r}' in str(error)
        else:
            conv = nn.Conv2d(channels, filters, kernel, device='meta')
            assert why_not_blocks(conv, p) in str(error)
    else:
        x = torch.zeros(1, channels, kernel, kernel)
        assert layer(x).shape == (1, filters, 1, 1)
