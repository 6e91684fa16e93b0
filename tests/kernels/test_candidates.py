"""Every candidate computes the dense convolution of the same function."""

import pytest
import torch

from mmdet_hetconv.kernels import CANDIDATES, take_weights
from mmdet_hetconv.kernels.fused_cpu import FusedCPU, merge_blocks
from mmdet_hetconv.layers import HetConv2d

from .cases import CASES, build, expected

CPU = [c for c in CANDIDATES if c.name != 'fused_triton']


def ready(candidate, layer, x):
    weights = take_weights(layer)
    reason = candidate.why_not(weights, x)
    if reason:
        pytest.skip(reason)
    return candidate(weights, x)


@pytest.mark.parametrize('case', CASES)
@pytest.mark.parametrize('candidate', CPU, ids=lambda c: c.name)
def test_equals_dense(candidate, case):
    layer, x = build(case)
    compute = ready(candidate, layer, x)
    plain = expected(layer, x)
    torch.testing.assert_close(
        compute(x, None, False).double(), plain, rtol=1e-4, atol=2e-5
    )
    residual = torch.randn(plain.shape)
    torch.testing.assert_close(
        compute(x, residual, True).double(),
        expected(layer, x, residual, relu=True),
        rtol=1e-4,
        atol=2e-5,
    )


@pytest.mark.parametrize('candidate', CPU, ids=lambda c: c.name)
def test_leaves_inputs_alone_and_takes_any_strides(candidate):
    layer, x = build('plain')
    compute = ready(candidate, layer, x)
    wide = torch.randn(2, 32, 18, 22)
    strided = wide[:, :, ::2, ::2]
    residual = torch.randn(2, 9, 11, 64).permute(0, 3, 1, 2)
    before = wide.clone(), residual.clone()
    y = compute(strided, residual, True)
    assert torch.equal(wide, before[0])
    assert torch.equal(residual, before[1])
    torch.testing.assert_close(
        y.double(),
        expected(layer, strided, residual, relu=True),
        rtol=1e-4,
        atol=2e-5,
    )


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
@pytest.mark.parametrize('candidate', CPU, ids=lambda c: c.name)
def test_nan_and_inf_go_where_conv2d_sends_them(candidate, value):
    layer, x = build('plain')
    compute = ready(candidate, layer, x)
    x[0, 3, 4, 5] = value
    y = compute(x, None, True)
    # The own block sees the 3 x 3 neighbourhood, everyone sees the centre.
    strange = ~torch.isfinite(y[0, :16])
    assert strange[:, 4, 5].any()
    assert not strange[:, 0].any()
    assert torch.isfinite(y[1]).all()
    own = y[0, :16, 3:6, 4:7]
    if value != value:
        assert torch.isnan(y[0, :, 4, 5]).all()
        assert torch.isnan(own).all()
    else:
        wanted = expected(layer, x, relu=True)[0, :16, 3:6, 4:7]
        assert torch.isinf(wanted).any()
        assert torch.equal(torch.isinf(own), torch.isinf(wanted))
        assert not torch.isnan(own).any()


@pytest.mark.parametrize(
    'filters, p, merged', [(64, 8, 8), (64, 16, 8), (64, 64, 8), (4, 4, 1)]
)
def test_narrow_blocks_are_merged(filters, p, merged):
    assert merge_blocks(filters, p) == merged


@pytest.mark.parametrize('width', [1, 13, 14, 15, 28, 29, 57])
def test_fused_cpu_covers_every_tile_width(width):
    layer, _ = build('wide')
    x = torch.randn(1, 64, 2, width)
    y = ready(FusedCPU, layer, x)(x, None, False)
    torch.testing.assert_close(
        y.double(), expected(layer, x), rtol=1e-4, atol=2e-5
    )


@pytest.mark.parametrize('threads', [1, 2, 5])
def test_fused_cpu_with_any_number_of_threads(threads):
    layer, x = build('plain')
    compute = ready(FusedCPU, layer, x)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        y = compute(x, None, False)
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(
        y.double(), expected(layer, x), rtol=1e-4, atol=2e-5
    )


def test_fused_cpu_operator_contract():
    """Fake kernel and schema, as torch.compile relies on them."""
    layer, x = build('stride')
    compute = ready(FusedCPU, layer, x)
    w = compute.weights
    torch.library.opcheck(
        torch.ops.mmdet_hetconv.fused_cpu.default,
        (
            x.contiguous(memory_format=torch.channels_last),
            compute.packed,
            compute.panels,
            w.bias,
            None,
            w.out_channels,
            list(w.kernel_size),
            list(w.stride),
            list(w.padding),
            list(w.dilation),
            compute.p,
            True,
        ),
        test_utils=('test_schema', 'test_faketensor'),
    )


def test_fused_cpu_counts_exactly_the_papers_flops():
    layer = HetConv2d(64, 64, 3, padding=1, p=4).requires_grad_(False)
    x = torch.randn(1, 64, 5, 7)
    compute = ready(FusedCPU, layer, x)
    with torch.utils.flop_counter.FlopCounterMode(display=False) as counter:
        compute(x, None, False)
    macs = (64 + 8 * 64 // 4) * 64 * 5 * 7
    assert counter.get_total_flops() == 2 * macs
