"""Convolutions of bytes against sums of integers in float64, which are exact."""

import copy
import platform
import shutil
import threading
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmdet_hetconv.kernels import Plan, PlannedConv2d, take_weights
from mmdet_hetconv.kernels.cpu import library as cpu_library
from mmdet_hetconv.kernels.int8 import (
    EagerInt8,
    FusedInt8,
    most_weight,
    quantize_weights,
    weight_scales,
)
from mmdet_hetconv.kernels.quantized import QuantizedTensor
from mmdet_hetconv.kernels.weights import Int8, Levels

from .cases import CASES, build

CANDIDATES = [FusedInt8, EagerInt8]
LEVELS = {'signed': Levels(0.02, 101), 'after a ReLU': Levels(0.013, 0)}
OUTPUT = Levels(0.05, 77)

needs_compiler = pytest.mark.skipif(shutil.which('c++') is None, reason='no C++ compiler')


def bytes_of(shape, levels) -> QuantizedTensor:
    return QuantizedTensor.of(torch.randint(0, 256, shape, dtype=torch.uint8), levels)


def exact(weights, x, residual=None, relu=False) -> torch.Tensor:
    """The output in float64 of what weights and inputs were rounded to."""
    levels, scales = quantize_weights(weights)
    if isinstance(x, QuantizedTensor):
        known, q = x.levels, x.raw.double()
    else:
        known = weights.int8.input
        q = (x * torch.tensor(1 / known.scale) + known.zero).double().round().clamp(0, 255)
    weight, _ = replace(levels, bias=None).ordered_dense()
    y = F.conv2d(
        *(q - known.zero, weight.double(), None),
        *(weights.stride, weights.padding, weights.dilation),
    )
    bias = torch.zeros_like(scales) if weights.bias is None else weights.bias
    if weights.output_order is not None:
        scales, bias = scales[weights.output_order], bias[weights.output_order]
    y = y * (scales.double() * known.scale)[:, None, None] + bias.double()[:, None, None]
    if residual is not None:
        y = y + residual.floats().double()
    return y.relu() if relu else y


def check(y, wanted, levels=None):
    """Equal up to the rounding of float32; bytes are the nearest."""
    if levels is None:
        assert y.dtype == torch.float32
        torch.testing.assert_close(y.double(), wanted, rtol=1e-6, atol=1e-6)
        return
    place = (wanted / levels.scale + levels.zero).clamp(0, 255)
    assert y.levels == levels
    assert (y.raw.double() - place).abs().max() <= 0.5 + 1e-3


@pytest.fixture(scope='module', params=['', '-mno-avx512f', '-march=x86-64'], ids=str)
def library(request, tmp_path_factory):
    """The kernel as this and less able machines build it."""
    if request.param and platform.machine() != 'x86_64':
        pytest.skip('for x86')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('XDG_CACHE_HOME', str(tmp_path_factory.mktemp('cache')))
        patch.setattr(cpu_library, 'FLAGS', (*cpu_library.FLAGS, *request.param.split()))
        library, reason = cpu_library.load_library.__wrapped__()
    assert reason is None
    return library


@pytest.fixture
def built(library, monkeypatch):
    for name in ('cpu.operators', 'cpu.candidates', 'int8', 'quantized'):
        monkeypatch.setattr(f'mmdet_hetconv.kernels.{name}.load_library', lambda: (library, None))


def case_of(name, levels='signed', output=None):
    layer, x = build(name)
    weights = replace(take_weights(layer), int8=Int8(LEVELS[levels], output))
    return weights, x


@needs_compiler
@pytest.mark.parametrize('case', CASES)
@pytest.mark.parametrize('levels', LEVELS)
def test_fused_sums_are_exact(built, case, levels):
    compare(FusedInt8, case, levels)


@pytest.mark.parametrize('case', CASES)
def test_eager_sums_are_exact(case):
    compare(EagerInt8, case, 'signed')


def compare(candidate, case, levels):
    weights, x = case_of(case, levels)
    check(candidate(weights, x)(x, None, False), exact(weights, x))
    weights, x = case_of(case, levels, OUTPUT)
    x = bytes_of(x.shape, LEVELS[levels])
    residual = bytes_of(exact(weights, x).shape, Levels(0.03, 9))
    y = candidate(weights, x)(x, residual, True)
    check(y, exact(weights, x, residual, True), OUTPUT)


@needs_compiler
@pytest.mark.parametrize('channels', [1, 3, 6, 9])
def test_channels_that_do_not_fill_words(built, channels):
    layer = nn.Conv2d(channels, 20, 7, stride=2, padding=3).requires_grad_(False)
    weights = replace(take_weights(layer), int8=Int8(LEVELS['signed']))
    for x in (torch.randn(2, channels, 13, 30), torch.randn(2, channels, 13, 30).bfloat16()):
        check(FusedInt8(weights, x)(x, None, False), exact(weights, x.float()))


@needs_compiler
def test_the_largest_sums(built):
    """4,608 products of 255 and the largest weight: float32 does not hold their sums.

    Nor do 16 bits hold two of them, where pairs are added in 16 bits and this is more than 63.
    """
    layer = nn.Conv2d(512, 8, 3, padding=1).requires_grad_(False)
    layer.weight.fill_(1.0)
    weights = replace(take_weights(layer), int8=Int8(Levels(1.0, 0)))
    x = QuantizedTensor.of(torch.full((1, 512, 5, 5), 255, dtype=torch.uint8), Levels(1.0, 0))
    y = FusedInt8(weights, x)(x, None, False)
    wanted = exact(weights, x)
    assert float(wanted.max()) > 1.1e6
    torch.testing.assert_close(y.double(), wanted, rtol=2e-7, atol=0)


def test_weights_have_the_scale_of_least_error():
    most = most_weight()
    assert most in (63, 127)
    rows = torch.randn(5, 300)
    rows[4] = 0
    scales = weight_scales(rows)
    assert scales[4] == 1

    def error(scale):
        q = (rows / scale[:, None]).round().clamp(-most, most)
        return (q * scale[:, None] - rows).square().sum(1)

    assert (error(scales) <= error(rows.abs().amax(1).clamp(min=1e-9) / most) + 1e-9).all()


@needs_compiler
def test_nan_is_the_lowest_level_and_infinity_the_highest(built):
    weights, x = case_of('plain')
    x[0, 0, 4, 4], x[0, 1, 4, 4], x[0, 2, 4, 4] = float('nan'), float('inf'), -float('inf')
    levels = weights.int8.input
    like = x.clone()
    like[0, 0, 4, 4] = like[0, 2, 4, 4] = -levels.scale * levels.zero
    like[0, 1, 4, 4] = levels.scale * (255 - levels.zero)
    for candidate in CANDIDATES:
        compute = candidate(weights, x)
        assert torch.equal(compute(x, None, False), compute(like, None, False))


@needs_compiler
@pytest.mark.parametrize('threads', [1, 2, 5])
def test_any_number_of_threads(threads):
    weights, x = case_of('plain')
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        y = FusedInt8(weights, x)(x, None, False)
    finally:
        torch.set_num_threads(before)
    check(y, exact(weights, x))


@needs_compiler
@pytest.mark.parametrize(
    'pool',
    [
        nn.MaxPool2d(2, ceil_mode=True),
        nn.MaxPool2d(3, stride=2, padding=1),
        nn.MaxPool2d(3, stride=1, padding=1),
        nn.MaxPool2d((1, 3), stride=(2, 1), padding=(0, 1), dilation=2),
    ],
    ids=str,
)
def test_bytes_are_pooled(built, pool):
    x = bytes_of((2, 12, 31, 20), LEVELS['signed'])
    y = pool(x)
    assert isinstance(y, QuantizedTensor)
    assert torch.equal(y.floats(), pool(x.floats()))


@pytest.mark.parametrize(
    'operate',
    [
        lambda x: x + 1.5,
        lambda x: torch.ones(1) * x,
        lambda x: x[:, :2],
        lambda x: x.permute(0, 2, 3, 1).reshape(2, -1, 4),
        lambda x: torch.cat([x, x]),
        lambda x: F.interpolate(x, scale_factor=2),
        lambda x: x.sigmoid(),
        lambda x: x.detach().contiguous(),
        lambda x: x.float(),
        lambda x: x.data,
        lambda x: nn.GroupNorm(2, 4)(x),
        lambda x: F.avg_pool2d(x, 2),
        lambda x: F.max_pool2d(x, 2, return_indices=True)[0],
        lambda x: copy.deepcopy(x),
        lambda x: torch.zeros_like(x),
    ],
)
def test_torch_sees_what_bytes_stand_for(operate):
    x = bytes_of((2, 4, 6, 6), LEVELS['signed'])
    y = operate(x)
    assert type(y) is torch.Tensor
    assert y.dtype == torch.float32
    assert torch.equal(y, operate(x.floats()))


def test_it_says_its_shape_and_float32():
    x = bytes_of((2, 4, 6, 5), LEVELS['signed'])
    assert (x.shape, x.dim(), x.dtype) == (torch.Size((2, 4, 6, 5)), 4, torch.float32)
    assert x.new_zeros(3).dtype == torch.float32


def operands(bytes_out):
    """What FusedInt8 gives to its operator, by name."""
    weights, x = case_of('stride', output=OUTPUT if bytes_out else None)
    fused, levels = FusedInt8(weights, x), LEVELS['signed']
    return dict(
        x=x.contiguous(memory_format=torch.channels_last),
        packed=fused.packed,
        panels=fused.panels,
        correction=-levels.zero * fused.row_sums,
        scale=fused.weight_scales * levels.scale,
        bias=fused.bias,
        residual=None,
        levels=[*levels, 1.0, 0, *OUTPUT],
        geometry=fused.geometry,
        relu=True,
        bytes_out=bytes_out,
    )


@needs_compiler
@pytest.mark.parametrize('bytes_out', [False, True])
def test_operator_contract(bytes_out):
    """Fake kernel and schema, and twice the MACs of the paper."""
    operator, given = torch.ops.mmdet_hetconv.fused_int8, operands(bytes_out)
    torch.library.opcheck(
        operator.default, tuple(given.values()), test_utils=('test_schema', 'test_faketensor')
    )
    with torch.utils.flop_counter.FlopCounterMode(display=False) as counter:
        y = operator(**given)
    assert y.dtype == (torch.uint8 if bytes_out else torch.float32)
    assert counter.get_total_flops() == 2 * y.numel() * (32 + 8 * 32 // 4)


@needs_compiler
@pytest.mark.parametrize(
    'name, value',
    [
        ('x', torch.zeros(2, 16, 9, 12)),
        ('x', torch.zeros(2, 32, 9, 12, dtype=torch.float64)),
        ('packed', torch.zeros(9, dtype=torch.int8)),
        ('packed', torch.zeros(9999)),
        ('correction', torch.zeros(31, dtype=torch.int32)),
        ('scale', torch.zeros(64)[::2]),
        ('bias', torch.zeros(31)),
        ('residual', torch.zeros(2, 32, 1, 1)),
        ('residual', torch.zeros(2, 32, 5, 6, dtype=torch.float16)),
    ],
)
def test_operator_refuses_what_it_would_read_beyond(name, value):
    with pytest.raises(ValueError, match='the fused kernel'):
        torch.ops.mmdet_hetconv.fused_int8(**{**operands(False), name: value})


def planned(int8, **kwargs):
    layer, x = build('plain')
    conv = PlannedConv2d(layer, **kwargs)
    conv.int8 = int8
    return conv, x


def test_a_planned_layer_takes_and_gives_either(monkeypatch):
    conv, x = planned(Int8(LEVELS['signed'], OUTPUT))
    y = conv(x)
    assert isinstance(y, QuantizedTensor)
    (choice,) = conv.plan.choices.values()
    names = {'fused_int8', 'eager_int8'} if shutil.which('c++') else {'eager_int8'}
    assert names <= set(choice.ms) <= {*names, 'fused_int8_amx'}
    # Whatever was faster a moment ago, the one that takes bytes as they are.
    conv.plan = Plan(only=['fused_int8'] if shutil.which('c++') else ['eager_int8'])
    bytes_in = bytes_of(x.shape, Levels(0.1, 3))
    added = bytes_of((2, 64, 9, 11), OUTPUT)
    for residual in (None, added):
        conv(bytes_in, residual)  # timed, and compared with the plain convolution
    monkeypatch.delattr(QuantizedTensor, 'floats')  # nothing turns them into floats
    y = conv(bytes_in, added)
    assert isinstance(y, QuantizedTensor)
    check(conv(bytes_in), exact(conv.weights(), bytes_in), OUTPUT)
    monkeypatch.undo()
    assert conv(x[0]).shape == y.shape[1:]
    # One that computes in floats takes bytes, too.
    conv.int8, conv.plan = None, Plan()
    assert torch.equal(conv(bytes_in), conv(bytes_in.floats()))


def test_what_int8_cannot_do_is_refused():
    conv, x = planned(Int8(LEVELS['signed']))
    with pytest.raises(ValueError, match='neither traced nor differentiated'):
        conv(x.requires_grad_())
    with pytest.raises(ValueError, match='the residual is'):
        conv(x.detach(), torch.zeros(2, 64, 1, 1))


def test_no_pixels():
    conv, x = planned(Int8(LEVELS['signed'], OUTPUT))
    assert conv(x[:0]).shape == (0, 64, 9, 11)


@needs_compiler
def test_two_threads_with_different_shapes():
    conv, x = planned(Int8(LEVELS['signed']))
    inputs = [torch.randn(1, 32, 5 + i, 9) for i in range(8)]
    found = {}

    def run(some):
        for x in some:
            found[x.shape[2]] = conv(x)

    threads = [threading.Thread(target=run, args=(inputs[i::2],)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for x in inputs:
        check(found[x.shape[2]], exact(conv.weights(), x))
