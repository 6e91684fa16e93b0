"""Inputs on which a network is watched."""

import pytest
import torch
from torch import nn

from mmdet_hetconv.trace import record_examples
from mmdet_hetconv.trace.examples import noise_like


def examples(net, example=None):
    return [run.keywords['example'] for run, _ in record_examples(net.eval(), example)]


def test_random_images_of_the_first_convolutions_channels():
    images = examples(nn.Sequential(nn.Conv2d(5, 8, 3), nn.ReLU()))
    assert [image.shape for image in images] == [(2, 5, 64, 96), (1, 5, 85, 59)]
    assert all(image.std() > 0.5 for image in images)


def test_sizes_that_the_network_takes():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.PixelUnshuffle(8))
    assert [image.shape for image in examples(net)] == [(2, 3, 64, 96), (1, 3, 96, 64)]
    net = nn.Sequential(nn.Conv2d(3, 4, 3, stride=8), nn.Flatten(), nn.Linear(4 * 28 * 28, 5))
    assert [image.shape for image in examples(net)] == [(2, 3, 224, 224), (1, 3, 224, 224)]


def test_own_examples_in_all_forms():
    class Named(nn.Conv2d):
        def forward(self, x, scale=1.0):
            return super().forward(x) * scale

    net, x = Named(3, 4, 3).eval(), torch.randn(2, 3, 12, 16)
    for example in (x, (x, 2.0), dict(x=x, scale=2.0)):
        runs = [run for run, _ in record_examples(net, example)]
        assert [run(net).shape for run in runs] == [(2, 4, 10, 14), (2, 4, 10, 14), (1, 4, 7, 11)]
    with pytest.raises(ValueError, match='does not run on the example: RuntimeError'):
        record_examples(net, x[:, :1])


def test_a_network_that_takes_no_images():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x, y):
            return self.conv(x + y)

    assert record_examples(Two().eval()) == []


def test_noise_is_as_large_as_what_it_stands_for():
    x = 100 * torch.randn(1, 3, 50, 50) + 7
    noise = noise_like(dict(x=x, n=torch.arange(3)))
    assert 90 < noise['x'].std() < 110 and noise['n'].tolist() == [0, 1, 2]
    assert noise_like(torch.zeros(1, 3, 8, 8)).std() > 0.5
