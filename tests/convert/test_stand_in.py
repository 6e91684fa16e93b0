"""The data-free projection on feature maps of a network that learnt."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmdet_hetconv.layers import pointwise_approximation


def drawings(count, seed):
    """Discs, bars and rings on a smooth ground; the kind is the class."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(low, high, *shape):
        return low + (high - low) * torch.rand(shape, generator=generator)

    label = torch.randint(3, (count,), generator=generator)
    ground = F.interpolate(uniform(0, 0.7, count, 3, 3, 3), (24, 24))
    axis = torch.arange(24.0)
    y = axis[:, None] - uniform(8, 16, count, 1, 1)
    x = axis[None, :] - uniform(8, 16, count, 1, 1)
    far = torch.hypot(x, y)
    size = uniform(4, 7, count, 1, 1)
    shapes = torch.stack([far < size, (x.abs() < size) & (y.abs() < 2), (far - size).abs() < 1.2])
    shape = shapes[label, torch.arange(count)].float()[:, None]
    colour = uniform(0, 1, count, 3, 1, 1)
    images = ground + shape * (colour - ground)
    return images + 0.02 * torch.randn(images.shape, generator=generator), label


@pytest.fixture(scope='module')
def layers():
    """Inputs and weights of the 3 x 3 convolutions of a trained network."""
    torch.manual_seed(0)
    net = nn.Sequential()
    for filters, channels in ((16, 3), (16, 16), (24, 16), (24, 24)):
        net.extend(
            [
                nn.Conv2d(channels, filters, 3, padding=1, bias=False),
                nn.BatchNorm2d(filters),
                nn.ReLU(),
            ]
        )
        if filters != channels:
            net.append(nn.MaxPool2d(2))
    net.extend([nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 3)])
    optimizer = torch.optim.Adam(net.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, 100)
    for step in range(100):
        images, labels = drawings(48, step)
        loss = F.cross_entropy(net(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    net.eval()
    images, labels = drawings(200, 1000)
    seen = []
    for module in net:
        if isinstance(module, nn.Conv2d) and module.in_channels > 3:
            module.register_forward_hook(
                lambda m, args, y: seen.append((args[0], m.weight.detach()))
            )
    with torch.no_grad():
        accuracy = (net(images).argmax(1) == labels).float().mean()
    assert accuracy > 0.7  # it has learnt
    assert len(seen) == 3
    return seen


def error(x, weight, stand_in):
    """Relative error of the output if every kernel becomes point-wise."""
    y = F.conv2d(x, weight)
    difference = F.conv2d(x[..., 1:-1, 1:-1], stand_in) - y
    deviation = (y - y.mean((0, 2, 3), keepdim=True)).square().mean()
    return (difference.square().mean() / deviation).sqrt().item()


def test_it_beats_the_centre_tap_and_the_sum_of_taps(layers):
    totals = {'centre': 0.0, 'sum': 0.0, 'stand-in': 0.0}
    for x, weight in layers:
        centre = weight[..., 1:2, 1:2]
        summed = weight.sum((2, 3), keepdim=True)
        totals['centre'] += error(x, weight, centre)
        totals['sum'] += error(x, weight, summed)
        totals['stand-in'] += error(x, weight, pointwise_approximation(weight))
    assert totals['stand-in'] < 0.97 * totals['sum']
    assert totals['stand-in'] < 0.8 * totals['centre']


def test_the_prior_is_that_of_feature_maps(layers):
    """Raw products of neighbours, and of diagonal ones, near r and r^2."""
    near, diagonal = [], []
    for x, _ in layers:
        power = x.square().mean()
        right = (x[..., 1:] * x[..., :-1]).mean() / power
        below = (x[..., 1:, :] * x[..., :-1, :]).mean() / power
        both = (x[..., 1:, 1:] * x[..., :-1, :-1]).mean() / power
        near.append(((right + below) / 2).item())
        diagonal.append(both.item())
    assert 0.6 < sum(near) / len(near) < 0.95
    assert sum(diagonal) < sum(near)
