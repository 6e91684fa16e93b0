"""The Triton kernel, on a GPU or in Triton's interpreter.

The interpreter has to be on before Triton is imported, so without a GPU
these tests run in a process of their own, see test_interpreted.
"""

import importlib.util
import os
import subprocess
import sys

import pytest
import torch

from mmdet_hetconv.kernels import take_weights
from mmdet_hetconv.kernels.triton import operator
from mmdet_hetconv.kernels.triton.operator import FusedTriton, fused, pack_taps
from mmdet_hetconv.layers import HetConv2d

from .cases import build, expected

INTERPRETED = os.environ.get('TRITON_INTERPRET') == '1'
DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'
no_triton = importlib.util.find_spec('triton') is None
needs_kernel = pytest.mark.skipif(
    no_triton or (DEVICE == 'cpu' and not INTERPRETED),
    reason='needs Triton, and a GPU or TRITON_INTERPRET=1',
)
FITTING = [
    *('stride', 'strides', 'dilated', 'overpadded', 'asymmetric'),
    *('odd blocks', 'shifted'),
]


@pytest.mark.skipif(no_triton, reason='Triton is not installed')
@pytest.mark.skipif(INTERPRETED, reason='this is the interpreter')
@pytest.mark.skipif(DEVICE == 'cuda', reason='the GPU runs them')
def test_interpreted():
    run = subprocess.run(
        [sys.executable, '-m', 'pytest', '-q', '-x', __file__],
        env={**os.environ, 'TRITON_INTERPRET': '1', 'OMP_NUM_THREADS': '1'},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout[-3000:]
    assert ' passed' in run.stdout


@pytest.mark.skipif(DEVICE == 'cuda' or INTERPRETED, reason='it runs here')
def test_says_why_it_does_not_run():
    layer, x = build('plain')
    reason = FusedTriton.why_not(take_weights(layer), x)
    assert reason in ('Triton is not installed', 'Triton runs on GPUs, not on cpu')


@needs_kernel
@pytest.mark.parametrize('case', FITTING)
def test_equals_dense(case, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, 'allow_tf32', False)
    layer, x = build(case)
    layer, x = layer.to(DEVICE), x.to(DEVICE)
    weights = take_weights(layer)
    assert FusedTriton.why_not(weights, x) is None
    compute = FusedTriton(weights, x)
    plain = expected(layer, x)
    residual = torch.randn(plain.shape, device=DEVICE)
    torch.testing.assert_close(compute(x, None, False).double(), plain, rtol=1e-4, atol=2e-5)
    torch.testing.assert_close(
        compute(x, residual, True).double(),
        expected(layer, x, residual, relu=True),
        rtol=1e-4,
        atol=2e-5,
    )


@needs_kernel
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_low_precision_accumulates_in_float32(dtype):
    if dtype == torch.bfloat16 and DEVICE == 'cpu':
        pytest.skip("Triton's interpreter cannot multiply bfloat16")
    layer, x = build('plain')
    layer, x = layer.to(DEVICE, dtype), x.to(DEVICE, dtype)
    y = FusedTriton(take_weights(layer), x)(x, None, False)
    assert y.dtype == dtype
    # One rounding, that of the output.
    step = torch.finfo(dtype).eps
    torch.testing.assert_close(y.double(), expected(layer, x), rtol=step, atol=step)


@needs_kernel
def test_nan_and_inf_spread_as_in_conv2d():
    layer, x = build('plain')
    x[0, 3, 4, 5] = float('nan')
    y = FusedTriton(take_weights(layer.to(DEVICE)), x.to(DEVICE))(x.to(DEVICE), None, True)
    assert torch.isnan(y[0, :, 4, 5]).all()
    assert torch.isnan(y[0, :16, 3:6, 4:7]).all()
    assert torch.isfinite(y[0, :, 0]).all()
    assert torch.isfinite(y[1]).all()
    x[0, 3, 4, 5] = 0
    residual = torch.randn_like(y)
    residual[0, 3, 4, 5] = float('nan')
    y = FusedTriton(take_weights(layer), x.to(DEVICE))(x.to(DEVICE), residual, True)
    assert torch.equal(y.isnan(), residual.isnan())


def operands(relu: bool):
    layer = HetConv2d(16, 16, 3, 2, 1, p=2).requires_grad_(False).to(DEVICE)
    weights = take_weights(layer)
    centre, taps = pack_taps(*weights.merged(weights.p))
    x = torch.randn(1, 16, 5, 6, device=DEVICE)
    tensors = [x, centre, taps, weights.bias]
    geometry = ([3, 3], [2, 2], [1, 1], [1, 1], 2, relu)
    return layer, tensors, geometry


@needs_kernel
def test_operator_contract():
    _, tensors, geometry = operands(True)
    torch.library.opcheck(
        fused, (*tensors, None, *geometry), test_utils=('test_schema', 'test_faketensor')
    )


@needs_kernel
def test_counts_exactly_the_papers_flops():
    _, tensors, geometry = operands(False)
    with torch.utils.flop_counter.FlopCounterMode(display=False) as counter:
        fused(*tensors, None, *geometry)
    assert counter.get_total_flops() == 2 * 9 * 16 * (16 + 8 * 8)


@needs_kernel
def test_more_pixels_than_32_bits_count_are_refused():
    layer, tensors, geometry = operands(False)
    large = tensors[0][:, :, :1, :1].expand(1, 16, 2**16, 2**18)
    assert 'pixels' in FusedTriton.why_not(take_weights(layer), large)
    y = torch.empty(1, device='meta').expand(1, 16, 2**15, 2**17)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(ValueError, match='pixels'):
        patch.setattr(operator, 'empty_output', lambda *_: y)
        fused(*tensors, None, *geometry)


@needs_kernel
def test_a_residual_of_another_shape_is_refused():
    _, tensors, geometry = operands(False)
    with pytest.raises(ValueError, match='residual'):
        fused(*tensors, torch.zeros(1, 16, 1, 1, device=DEVICE), *geometry)
