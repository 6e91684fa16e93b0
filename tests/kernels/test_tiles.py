"""AMX's tiles, whose instructions plain C++ emulates: no processor needs to have them."""

import shutil
from dataclasses import replace

import pytest
import torch

from mmdet_hetconv.kernels import CANDIDATES, take_weights
from mmdet_hetconv.kernels.cpu import library as cpu_library
from mmdet_hetconv.kernels.cpu.candidates import FusedAMX, FusedCPU
from mmdet_hetconv.kernels.int8 import FusedInt8, FusedInt8AMX
from mmdet_hetconv.kernels.weights import Int8, Levels
from mmdet_hetconv.layers import HetConv2d

from .cases import expected
from .test_int8 import OUTPUT, bytes_of, check, exact

pytestmark = pytest.mark.skipif(shutil.which('c++') is None, reason='no C++ compiler')
LEVELS = Levels(0.02, 101)
# (M, N, kernel, stride, padding, dilation, bias, p), (B, H, W)
CASES = {
    'full steps': ((256, 128, 3, 1, 1, 1, True, 4), (1, 5, 9)),
    'half steps': ((128, 64, 3, 1, 1, 1, True, 4), (2, 4, 40)),
    'one block': ((64, 48, 3, 1, 1, 1, False, 1), (1, 6, 17)),
    'runs over rows': ((64, 32, 3, 1, 1, 1, True, 2), (1, 30, 5)),
    'long rows': ((64, 32, 3, 1, 1, 1, True, 2), (1, 3, 150)),
    'stride': ((64, 96, 3, 2, 1, 1, True, 2), (2, 9, 75)),
    'dilated': ((64, 32, 3, 1, 6, 6, True, 2), (1, 13, 40)),
    'asymmetric': ((128, 64, (3, 5), (1, 2), (0, 3), 1, True, 2), (1, 7, 21)),
    'one pixel': ((64, 64, 3, 1, 1, 1, True, 2), (1, 1, 1)),
}


@pytest.fixture(scope='module')
def emulated(tmp_path_factory):
    """The kernel with emulated tiles in place of the machine's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('XDG_CACHE_HOME', str(tmp_path_factory.mktemp('cache')))
        patch.setattr(cpu_library, 'FLAGS', (*cpu_library.FLAGS, '-DEMULATE_TILES'))
        library, reason = cpu_library.load_library.__wrapped__()
    assert reason is None
    with pytest.MonkeyPatch.context() as patch:
        for name in ('cpu.operators', 'cpu.candidates', 'int8'):
            patch.setattr(f'mmdet_hetconv.kernels.{name}.load_library', lambda: (library, None))
        yield library


def build(name, dtype=torch.float32):
    torch.manual_seed(0)
    (*arguments, bias, p), (batch, height, width) = CASES[name]
    if p == 1:
        layer = torch.nn.Conv2d(*arguments, bias=bias)
    else:
        layer = HetConv2d(*arguments, 1, bias, p=p)
    x = torch.randn(batch, layer.in_channels, height, width).to(dtype)
    return layer.requires_grad_(False).to(dtype), x


def test_without_amx_the_candidates_say_so():  # first, before a library is exchanged
    library, _ = cpu_library.load_library()
    if library.hetconv_has_tiles():
        pytest.skip('this processor has it')
    layer, x = build('full steps', torch.bfloat16)
    assert {FusedAMX, FusedInt8AMX} <= set(CANDIDATES)
    assert FusedAMX.why_not(take_weights(layer), x).endswith('has no AMX')


@pytest.mark.parametrize('case', CASES)
def test_bfloat16_within_its_rounding(emulated, case):
    layer, x = build(case, torch.bfloat16)
    weights = take_weights(layer)
    assert FusedAMX.why_not(weights, x) is None
    fused = FusedAMX(weights, x)
    plain = FusedCPU(weights, x)
    residual = torch.randn_like(plain(x, None, False))
    for added, relu in ((None, False), (residual, True)):
        if isinstance(layer, HetConv2d):
            wanted = expected(layer, x, added, relu)
        else:
            wanted = layer.double()(x.double()) + (0 if added is None else added.double())
            wanted = wanted.relu() if relu else wanted
        y = fused(x, added, relu)
        assert y.dtype == torch.bfloat16
        torch.testing.assert_close(y.double(), wanted, rtol=2**-8, atol=1e-4)


@pytest.mark.parametrize('case', CASES)
def test_bytes_are_exact(emulated, case):
    layer, x = build(case)
    weights = replace(take_weights(layer), int8=Int8(LEVELS))
    assert FusedInt8AMX.why_not(weights, x) is None
    y = FusedInt8AMX(weights, x)(x, None, False)
    check(y, exact(weights, x))
    assert torch.equal(y, FusedInt8(weights, x)(x, None, False))
    weights = replace(weights, int8=Int8(LEVELS, OUTPUT))
    x, residual = bytes_of(x.shape, LEVELS), bytes_of(y.shape, Levels(0.03, 9))
    y = FusedInt8AMX(weights, x)(x, residual, True)
    check(y, exact(weights, x, residual, True), OUTPUT)
    assert torch.equal(y.raw, FusedInt8(weights, x)(x, residual, True).raw)


def test_several_threads(emulated):
    layer, x = build('long rows')
    weights = replace(take_weights(layer), int8=Int8(LEVELS))
    fused, before = FusedInt8AMX(weights, x), torch.get_num_threads()
    wanted = fused(x, None, False)
    torch.set_num_threads(3)
    try:
        assert torch.equal(fused(x, None, False), wanted)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_only_own_channels_meet_the_taps(emulated, value):
    """A tile never reads a foreign block's channels, whose zeros would make NaN."""
    layer, x = build('runs over rows', torch.bfloat16)
    x[0, 0, 10, 2] = value
    y = FusedAMX(take_weights(layer), x)(x, None, False)
    strange = torch.zeros(y.shape, dtype=torch.bool)
    strange[:, :16, 9:12, 1:4] = True
    strange[:, :, 10, 2] = True
    assert torch.equal(~y.isfinite(), strange)


@pytest.mark.parametrize(
    'channels, filters, p, reason',
    [(96, 64, 4, 'blocks of 24 channels'), (128, 96, 4, 'blocks of 24 filters')],
)
def test_shapes_that_do_not_fill_tiles(emulated, channels, filters, p, reason):
    weights = take_weights(HetConv2d(channels, filters, 3, padding=1, p=p).bfloat16())
    x = torch.randn(1, channels, 4, 4)
    assert reason in FusedInt8AMX.why_not(replace(weights, int8=Int8(LEVELS)), x)
    assert 'no torch.float32' in FusedAMX.why_not(weights, x)


def test_panels_that_are_no_tiles(emulated):
    layer, x = build('full steps', torch.bfloat16)
    fused = FusedCPU(take_weights(layer), x)
    fused.panels = fused.panels.clone()
    fused.panels[:, 1] -= 1
    fused.tiles = True
    with pytest.raises(ValueError, match='the fused kernel'):
        fused(x, None, False)
