"""Every candidate computes the dense convolution of the same function."""

import copy
import platform
import shutil

import pytest
import torch

from mmdet_hetconv.kernels import CANDIDATES, take_weights
from mmdet_hetconv.kernels.cpu import library as cpu_library
from mmdet_hetconv.kernels.cpu.candidates import FusedCPU
from mmdet_hetconv.kernels.cpu.panels import merge_blocks
from mmdet_hetconv.layers import HetConv2d

from .cases import CASES, build, expected

KNOWN = ['the centres are off', 'AMX has no', 'this processor, or the compiler, has no AMX']
if shutil.which('c++') is None:
    KNOWN.append('no C++ compiler')
if not torch.backends.mkldnn.is_available():
    KNOWN.append('oneDNN')
elif not torch.ops.mkldnn._is_mkldnn_bf16_supported():
    KNOWN.append('oneDNN has no bfloat16')
KNOWN = tuple(KNOWN)
CPU = [c for c in CANDIDATES if c.name != 'fused_triton' and not c.quantized]


def ready(candidate, layer, x):
    """The candidate on a layer's weights; skips what it says it cannot do.

    A kernel that does not compile is a fault, not a reason to skip.
    """
    weights = take_weights(layer)
    reason = candidate.why_not(weights, x)
    if reason:
        assert reason.startswith(KNOWN), f'{candidate.name}: {reason}'
        pytest.skip(reason)
    return candidate(weights, x)


@pytest.mark.parametrize('case', CASES)
@pytest.mark.parametrize('candidate', CPU, ids=lambda c: c.name)
def test_equals_dense(candidate, case):
    layer, x = build(case)
    compute = ready(candidate, layer, x)
    plain = expected(layer, x)
    torch.testing.assert_close(compute(x, None, False).double(), plain, rtol=1e-4, atol=2e-5)
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
        y.double(), expected(layer, strided, residual, relu=True), rtol=1e-4, atol=2e-5
    )


def in_bfloat16(case):
    """A layer whose weights bfloat16 holds, an input, and a bound of errors.

    Sums are float32 in every candidate. One that rounds its output once is off
    by half a step of bfloat16, 2 ** -9, and float32's 2 ** -24 per summand of
    the largest sum of absolute values; one that adds two rounded results, by
    as many roundings of what is never larger than that sum.
    """
    layer, x = build(case)
    layer, x = layer.bfloat16(), x.bfloat16()
    large = copy.deepcopy(layer).double()
    for parameter in large.parameters():
        parameter.abs_()
    bound = expected(large, x.double().abs())
    return layer, x, bound


@pytest.mark.parametrize('case', CASES)
@pytest.mark.parametrize('candidate', CPU, ids=lambda c: c.name)
def test_bfloat16_is_rounded_at_the_end(candidate, case):
    layer, x, bound = in_bfloat16(case)
    compute = ready(candidate, layer, x)
    residual = torch.randn(bound.shape).bfloat16()
    for added, relu in ((None, False), (residual, True)):
        y = compute(x, added, relu)
        assert y.dtype == torch.bfloat16
        wanted = expected(layer, x, added, relu)
        error = (y.double() - wanted).abs()
        total = bound if added is None else bound + added.double().abs()
        if candidate is FusedCPU:
            assert (error <= 2**-8 * wanted.abs() + 1e-4 * total).all()
        else:
            assert (error <= 4 * 2**-8 * total).all()


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


@pytest.mark.parametrize('filters, p, merged', [(64, 8, 8), (64, 16, 8), (64, 64, 8), (4, 4, 1)])
def test_narrow_blocks_are_merged(filters, p, merged):
    assert merge_blocks(filters, p) == merged


@pytest.mark.parametrize('width', [1, 13, 14, 15, 28, 29, 57])
def test_fused_cpu_covers_every_tile_width(width):
    layer, _ = build('wide')
    x = torch.randn(1, 64, 2, width)
    y = ready(FusedCPU, layer, x)(x, None, False)
    torch.testing.assert_close(y.double(), expected(layer, x), rtol=1e-4, atol=2e-5)


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
    torch.testing.assert_close(y.double(), expected(layer, x), rtol=1e-4, atol=2e-5)


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


@pytest.fixture(scope='module', params=['-mno-avx512f', '-march=x86-64'], ids=str)
def narrow_library(request, tmp_path_factory):
    """The kernel as a machine without the widest vectors builds it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('XDG_CACHE_HOME', str(tmp_path_factory.mktemp('cache')))
        patch.setattr(cpu_library, 'FLAGS', (*cpu_library.FLAGS, request.param))
        library, reason = cpu_library.load_library.__wrapped__()
    assert reason is None
    return library


def use(library, monkeypatch):
    for name in ('operators', 'candidates'):
        monkeypatch.setattr(
            f'mmdet_hetconv.kernels.cpu.{name}.load_library', lambda: (library, None)
        )


@pytest.mark.skipif(shutil.which('c++') is None, reason='no C++ compiler')
@pytest.mark.skipif(platform.machine() != 'x86_64', reason='for x86')
@pytest.mark.parametrize('case', CASES)
def test_narrow_variants_in_bfloat16(narrow_library, case, monkeypatch):
    use(narrow_library, monkeypatch)
    layer, x, bound = in_bfloat16(case)
    y = FusedCPU(take_weights(layer), x)(x, None, False)
    wanted = expected(layer, x)
    assert ((y.double() - wanted).abs() <= 2**-8 * wanted.abs() + 1e-4 * bound).all()


@pytest.mark.skipif(shutil.which('c++') is None, reason='no C++ compiler')
@pytest.mark.skipif(platform.machine() != 'x86_64', reason='for x86')
@pytest.mark.parametrize('case', CASES)
def test_narrow_variants_equal_dense(narrow_library, case, monkeypatch):
    use(narrow_library, monkeypatch)
    layer, x = build(case)
    compute = FusedCPU(take_weights(layer), x)
    torch.testing.assert_close(
        compute(x, None, False).double(), expected(layer, x), rtol=1e-4, atol=2e-5
    )


@pytest.mark.parametrize(
    'name, value',
    [
        ('x', torch.zeros(2, 16, 9, 11)),
        ('x', torch.zeros(2, 32, 9, 11, dtype=torch.float64)),
        ('packed', torch.zeros(9)),
        ('packed', torch.zeros(2, 9000).t()),
        ('panels', torch.zeros(4, 5, dtype=torch.int64) - 1),
        ('panels', torch.zeros(4, 5)),
        ('bias', torch.zeros(63)),
        ('bias', torch.zeros(128)[::2]),
        ('bias', torch.zeros(64, dtype=torch.bfloat16)),
        ('residual', torch.zeros(2, 64, 1, 1)),
        ('residual', torch.zeros(2, 64, 9, 11, dtype=torch.float16)),
    ],
)
def test_fused_cpu_refuses_what_it_would_read_beyond(name, value):
    layer, x = build('plain')
    compute = ready(FusedCPU, layer, x)
    tensors = dict(
        x=x, packed=compute.packed, panels=compute.panels, bias=compute.weights.bias, residual=None
    )
    tensors[name] = value
    with pytest.raises(ValueError, match='fused'):
        torch.ops.mmdet_hetconv.fused_cpu(
            *tensors.values(), 64, [3, 3], [1, 1], [1, 1], [1, 1], 4, False
        )


@pytest.mark.parametrize('channels, p', [(9, 3), (3, 1), (7, 1)])
def test_bfloat16_with_an_odd_number_of_channels(channels, p):
    torch.manual_seed(0)
    plain = torch.nn.Conv2d(channels, 9, 3, padding=1).bfloat16().requires_grad_(False)
    layer = HetConv2d(channels, 9, 3, padding=1, p=p).bfloat16() if p > 1 else plain
    x = torch.randn(1, channels, 5, 50).bfloat16()
    with torch.no_grad():
        y = ready(FusedCPU, layer, x)(x, None, False)
        wanted = layer.double()(x.double())
    torch.testing.assert_close(y.double(), wanted, rtol=2**-8, atol=1e-4)


@pytest.mark.parametrize('value', [float('nan'), float('inf'), 3.4e38])
def test_bfloat16_keeps_nan_and_inf(value):
    layer, x, _ = in_bfloat16('plain')
    x[0, 3, 4, 5] = value
    y = ready(FusedCPU, layer, x)(x, None, False)
    layer, x = layer.float(), x.float()
    wanted = ready(FusedCPU, layer, x)(x, None, False).bfloat16()
    assert torch.equal(torch.isnan(y), torch.isnan(wanted))
    assert torch.equal(torch.isinf(y), torch.isinf(wanted))
