import itertools

import pytest
import torch

from mmdet_hetconv.convert.permutation.search import Loss, choose_blocks, lost_energy


def test_blocks_are_the_best_of_all():
    """Against every assignment of 4 filters and 4 channels to two blocks."""
    halves = [
        torch.tensor([i in chosen for i in range(4)]).long()
        for chosen in itertools.combinations(range(4), 2)
    ]
    found = 0
    for seed in range(10):
        torch.manual_seed(seed)
        energy = torch.rand(4, 4, dtype=torch.double)
        loss = Loss(energy, channels=0, filters=1, p=2)
        best = max(loss.kept({0: a, 1: b}) for a, b in itertools.product(halves, halves))
        blocks = choose_blocks([loss], {0: 4, 1: 4})
        assert blocks[0].bincount().tolist() == [2, 2]
        found += loss.kept(blocks) == pytest.approx(best)
    assert found >= 8  # a local search: not always, but mostly


def test_never_worse_than_the_present_blocks():
    """Here the present blocks are the best ones."""
    energy = torch.block_diag(*[torch.ones(2, 3)] * 4).double()
    loss = Loss(energy, channels=0, filters=1, p=4)
    blocks = choose_blocks([loss], {0: 12, 1: 8})
    assert loss.kept(blocks) == energy.sum().item()


def test_axes_that_are_not_free_stay():
    torch.manual_seed(0)
    loss = Loss(torch.rand(8, 8).double(), channels=0, filters=1, p=4)
    blocks = choose_blocks([loss], {0: 8})
    assert blocks[1].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_lost_energy_is_the_least_squares_residual():
    """Of one filter's output on one channel, fitted by its centre values."""
    torch.manual_seed(0)
    values = torch.randn(500, 2, 9, dtype=torch.double).cumsum(2)  # correlated
    values = values - values.mean(0)
    covariance = torch.einsum('smi,smj->mij', values, values) / len(values)
    weight = torch.randn(3, 2, 3, 3, dtype=torch.double)
    energy = lost_energy(weight, covariance)
    for n, m in itertools.product(range(3), range(2)):
        y = values[:, m] @ weight[n, m].flatten()
        fit = torch.linalg.lstsq(values[:, m, 4:5], y[:, None])
        residual = y - (values[:, m, 4:5] @ fit.solution)[:, 0]
        assert energy[n, m].item() == pytest.approx(residual.square().mean().item())
