import pytest
import torch

from mmdet_hetconv.layers import (
    expand_foreign,
    merge_to_dense,
    pointwise_approximation,
    project_dense,
    residue_order,
    take_foreign,
    take_own,
    taps_per_filter,
)

# VGG-16 on CIFAR-10 from the definition, beside the paper's table 1; without
# batch norm, with the head's biases. Millions.
VGG16 = [64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
VGG16_SIZE = [32, 32, 16, 16, 8, 8, 8, 4, 4, 4, 2, 2, 2]


@pytest.mark.parametrize(
    'p, macs, parameters',
    [
        (1, 313.46, 14.98),
        (2, 175.05, 8.44),
        (4, 105.85, 5.17),
        (8, 71.24, 3.54),
        (16, 53.94, 2.72),
        (32, 45.29, 2.31),
        (64, 40.97, 2.11),
    ],
)
def test_vgg16_on_cifar10_has_the_papers_macs(p, macs, parameters):
    total_macs = total_parameters = 0
    channels = 3
    for filters, size in zip(VGG16, VGG16_SIZE):
        part = 1 if channels == 3 else p
        taps = filters * taps_per_filter(channels, (3, 3), part)
        total_macs += taps * size * size
        total_parameters += taps  # no bias before a batch norm
        channels = filters
    total_parameters += 512 * 512 + 512 + 512 * 10 + 10
    total_macs += 512 * 512 + 512 * 10
    assert total_macs / 1e6 == pytest.approx(macs, abs=0.005)
    assert total_parameters / 1e6 == pytest.approx(parameters, abs=0.005)


@pytest.mark.parametrize('p', [2, 4, 8, 16, 32, 64])
def test_ratio_to_the_standard_convolution(p):
    ratio = taps_per_filter(64, (3, 3), p) / taps_per_filter(64, (3, 3), 1)
    assert ratio == pytest.approx(1 / p + (1 - 1 / p) / 9)


def test_residue_order_sorts_by_residue():
    order = residue_order(12, 4)
    assert order.tolist() == [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]


@pytest.mark.parametrize('p', [2, 3, 6])
def test_foreign_weights_land_outside_their_own_block(p):
    filters, channels = 12, 18
    foreign = torch.rand(filters, channels - channels // p, 1, 1) + 1
    matrix = expand_foreign(foreign, p)
    for n in range(filters):
        own = n // (filters // p)
        block = channels // p
        row = matrix[n, :, 0, 0]
        expected = foreign[n, :, 0, 0].split(block)
        expected = [*expected[:own], torch.zeros(block), *expected[own:]]
        assert torch.equal(row, torch.cat(expected))
    assert torch.equal(take_foreign(matrix, p), foreign)


@pytest.mark.parametrize('p', [1, 2, 4])
def test_merge_undoes_projection_of_a_heterogeneous_weight(p):
    grouped = torch.randn(8, 12 // p, 3, 5)
    foreign = torch.randn(8, 12 - 12 // p, 1, 1)
    if p == 1:
        assert torch.equal(take_own(grouped, 1), grouped)
        return
    dense = merge_to_dense(grouped, foreign, p)
    assert dense.shape == (8, 12, 3, 5)
    back_grouped, back_foreign = project_dense(dense, p)
    assert torch.equal(back_grouped, grouped)
    torch.testing.assert_close(back_foreign, foreign)


def test_point_stand_in_by_hand():
    weight = torch.arange(9.0).view(1, 1, 3, 3)
    assert pointwise_approximation(weight, 0).item() == 4
    assert pointwise_approximation(weight, 1).item() == 36
    expected = 4 + 0.5 * (1 + 3 + 5 + 7) + 0.25 * (0 + 2 + 6 + 8)
    assert pointwise_approximation(weight, 0.5).item() == pytest.approx(expected)


def test_point_stand_in_is_the_least_squares_answer():
    """On a field whose correlation is r**(|dy| + |dx|) by construction."""
    torch.manual_seed(0)
    r = 0.6
    rows, columns = torch.meshgrid(torch.arange(3.0), torch.arange(3.0), indexing='ij')
    points = torch.stack([rows.flatten(), columns.flatten()], 1).double()
    covariance = r ** torch.cdist(points, points, p=1)
    weight = torch.randn(3, 3, dtype=torch.double)
    # min_v E[(w.x - v x_4)^2] = w C e_4 / C_44, from the normal equation.
    best = (weight.flatten() @ covariance[:, 4]) / covariance[4, 4]
    assert pointwise_approximation(weight[None, None], r).item() == pytest.approx(best.item())
