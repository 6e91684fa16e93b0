"""What comes into a layer: what nn.Conv2d refuses is refused, all else is right."""

import threading

import pytest
import torch
from torch import nn
from torch.func import functional_call

from mmdet_hetconv.kernels import Plan, PlannedConv2d, plan
from mmdet_hetconv.kernels.cpu.library import load_library
from mmdet_hetconv.kernels.eager import PackedDenseNCHW, TwoBranchNCHW
from mmdet_hetconv.kernels.quantized import QuantizedTensor
from mmdet_hetconv.kernels.weights import Int8, Levels
from mmdet_hetconv.layers import HetConv2d

INT8 = Int8(Levels(0.03, 128), None)


def layers(int8: bool = False, **options):
    layer = HetConv2d(8, 16, 3, padding=1, p=4).eval()
    planned = PlannedConv2d(layer, Plan(frozen=True, **options))
    planned.int8 = INT8 if int8 else None
    return layer, planned


@pytest.mark.parametrize('int8', [False, True])
@pytest.mark.parametrize('channels', [1, 4, 7, 16])
def test_another_number_of_channels(channels, int8):
    with pytest.raises(RuntimeError, match=r'not \(B, 8, H, W\)'):
        layers(int8)[1](torch.randn(2, channels, 9, 9))


@pytest.mark.parametrize('int8', [False, True])
@pytest.mark.parametrize('dtype', [torch.uint8, torch.int32, torch.int64, torch.bool])
def test_whole_numbers(dtype, int8):
    with pytest.raises(RuntimeError, match='no floating-point type'):
        layers(int8)[1](torch.ones(1, 8, 9, 9, dtype=dtype))


@pytest.mark.parametrize('int8', [False, True])
def test_images_smaller_than_the_kernel(int8):
    planned = PlannedConv2d(HetConv2d(8, 16, 5, p=4), Plan(frozen=True))
    planned.int8 = INT8 if int8 else None
    with pytest.raises(RuntimeError, match='smaller than the kernel'):
        planned(torch.randn(1, 8, 4, 9))


@pytest.mark.parametrize('dtype', [torch.float16, torch.float64, torch.bfloat16])
@pytest.mark.parametrize('int8', [False, True])
def test_other_floats(dtype, int8):
    layer, planned = layers(int8)
    x = torch.randn(2, 8, 9, 7)
    y = planned(x.to(dtype)).float()
    assert (y - layer(x)).norm() / layer(x).norm() < (0.05 if int8 else 0.02)


def test_by_keyword():
    layer, planned = layers()
    x = torch.randn(1, 8, 5, 5)
    torch.testing.assert_close(planned(input=x), layer(input=x))


@pytest.mark.parametrize('only', [None, ['fused_cpu'], ['dense_nchw'], ['onednn_dense_nhwc']])
def test_a_residual_gets_its_gradient(only):
    _, planned = layers(only=only)
    residual = torch.randn(1, 16, 5, 5, requires_grad=True)
    planned(torch.randn(1, 8, 5, 5), residual).sum().backward()
    assert residual.grad.eq(1).all()


def test_inference_mode_first_and_gradients_after():
    _, planned = layers(only=['two_branch_nchw'])
    x = torch.randn(1, 8, 5, 5)
    with torch.inference_mode():
        planned(x)
    x.requires_grad_()
    planned(x).sum().backward()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize('only', [['fused_cpu'], ['dense_nchw'], ['onednn_dense_nhwc']])
def test_buffers_that_change_after_a_run(only):
    _, planned = layers(only=only)
    x = torch.randn(1, 8, 6, 6)
    before = planned(x)
    tripled = {name: 3 * buffer for name, buffer in planned.named_buffers()}
    torch.testing.assert_close(functional_call(planned, tripled, (x,)), 3 * before)
    torch.testing.assert_close(planned(x), before)
    for buffer in planned.buffers():
        buffer.mul_(2)
    torch.testing.assert_close(planned(x), 2 * before)
    planned.bias = None
    planned.grouped.zero_()
    planned.foreign.zero_()
    assert not planned(x).any()


def test_a_plan_that_is_exchanged():
    _, planned = layers()
    x = torch.randn(1, 8, 6, 6)
    for names in (['dense_nchw'], ['two_branch_nchw']) * 20:
        planned.plan = Plan(frozen=True, only=names)
        planned(x)
        assert [choice.candidate for choice in planned.plan.choices.values()] == names


class Wrong(PackedDenseNCHW):
    name = 'wrong'

    def compute(self, x, residual, relu):
        y = super().compute(x, residual, relu)
        y[..., -1, -1] += 10
        return y


def test_a_candidate_with_other_numbers_is_refused(monkeypatch):
    candidates = (Wrong, TwoBranchNCHW, PackedDenseNCHW)
    monkeypatch.setattr(plan, 'CANDIDATES', candidates)
    monkeypatch.setattr(plan, 'BY_NAME', {c.name: c for c in candidates})
    planned = PlannedConv2d(HetConv2d(8, 16, 3, padding=1, p=4), Plan())
    planned(torch.randn(1, 8, 6, 6))
    (choice,) = planned.plan.choices.values()
    assert choice.candidate != 'wrong' and 'wrong' not in choice.ms
    assert 'differ by' in choice.refused['wrong']


@pytest.mark.parametrize('size', [(2,), [2], 2, (2, 2)])
def test_pools_of_bytes_in_all_spellings(size):
    x = QuantizedTensor.of(torch.randint(0, 256, (1, 4, 6, 6), dtype=torch.uint8), Levels(0.1, 3))
    pool = nn.MaxPool2d(size)
    assert torch.equal(pool(x).floats(), pool(x.floats()))
    floats = torch.max_pool2d(input=x.floats(), kernel_size=size)
    found = torch.max_pool2d(input=x, kernel_size=size)
    assert torch.equal(found.floats() if isinstance(found, QuantizedTensor) else found, floats)


def test_windows_in_the_padding_alone():
    x = QuantizedTensor.of(torch.full((1, 4, 2, 2), 9, dtype=torch.uint8), Levels(0.1, 3))
    pool = nn.MaxPool2d(2, stride=1, padding=1, dilation=3)
    assert torch.equal(pool(x), pool(x.floats()))


def test_sums_that_32_bits_do_not_hold():
    planned = PlannedConv2d(nn.Conv2d(66_400, 1, 1, bias=False), Plan(frozen=True))
    nn.init.ones_(planned.grouped)
    planned.int8 = Int8(Levels(1.0, 0), None)
    x = torch.full((1, 66_400, 1, 1), 255.0)
    assert planned(x).item() == pytest.approx(66_400 * 255, rel=1e-3)


def test_maps_one_pixel_wide():
    """torch's convolution with the channels last ends the process on this one."""
    conv = nn.Conv2d(8, 8, 1, stride=(1, 2), padding=(0, 1), dilation=(1, 2)).eval()
    x = torch.randn(1, 8, 5, 1)
    torch.testing.assert_close(PlannedConv2d(conv)(x), conv(x))


def test_threads_that_end_hand_back_their_memory():
    resident = 'VmRSS'

    def megabytes() -> float:
        with open('/proc/self/status') as status:
            line = next(line for line in status if line.startswith(resident))
        return int(line.split()[1]) / 1024

    _, planned = layers(only=['fused_cpu'])
    planned = PlannedConv2d(HetConv2d(64, 64, 3, padding=1, p=4), Plan(only=['fused_cpu']))
    x = torch.randn(1, 64, 40, 40)
    planned(x)

    def in_threads(count: int) -> None:
        for _ in range(count):
            thread = threading.Thread(target=planned, args=(x,))
            thread.start()
            thread.join()

    in_threads(30)
    before = megabytes()
    in_threads(150)
    assert megabytes() - before < 10


@pytest.mark.skipif(load_library()[0] is None, reason='no C++ compiler')
@pytest.mark.parametrize(
    'filters, panel', [(4096, [0, 4096, 32, 0, 0]), (64, [0, 64, 8, 0, 0]), (8, [0, 8, 8, 0])]
)
def test_panels_that_the_kernel_cannot_take(filters, panel):
    packed, panels = torch.randn(100_000), torch.tensor([panel])
    with pytest.raises(ValueError, match='the fused kernel'):
        torch.ops.mmdet_hetconv.fused_cpu(
            *(torch.randn(1, 8, 4, 4), packed, panels, torch.randn(filters), None, filters),
            *([3, 3], [1, 1], [1, 1], [1, 1], 1, False),
        )
