"""Inputs on which a network is watched."""

import pytest
import torch
from torch import nn

from mmdet_hetconv.trace import example_runs
from mmdet_hetconv.trace.examples import noise_like


def test_random_images_of_the_first_convolutions_channels():
    runs = example_runs(nn.Sequential(nn.Conv2d(5, 8, 3), nn.ReLU()).eval())
    shapes = [run.keywords['example'].shape for run in runs]
    assert len(shapes) == 2 and shapes[0] != shapes[1]
    assert all(shape[1] == 5 for shape in shapes)
    assert all(run.keywords['example'].std() > 0.5 for run in runs)


def test_a_network_of_one_size():
    net = nn.Sequential(nn.Conv2d(3, 4, 3, stride=8), nn.Flatten(), nn.Linear(4 * 28 * 28, 5))
    (run,) = example_runs(net.eval())
    assert run.keywords['example'].shape[2:] == (224, 224)


def test_own_examples_in_all_forms():
    class Named(nn.Conv2d):
        def forward(self, x, scale=1.0):
            return super().forward(x) * scale

    net, x = Named(3, 4, 3).eval(), torch.randn(1, 3, 6, 6)
    for example in (x, (x, 2.0), dict(x=x, scale=2.0)):
        runs = example_runs(net, example)
        assert len(runs) == 2
        assert all(run(net).shape == (1, 4, 4, 4) for run in runs)
    with pytest.raises(ValueError, match='does not run on the example: RuntimeError'):
        example_runs(net, x[:, :1])


def test_a_network_that_takes_no_images():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x, y):
            return self.conv(x + y)

    assert example_runs(Two().eval()) == []


def test_noise_is_as_large_as_what_it_stands_for():
    x = 100 * torch.randn(1, 3, 50, 50) + 7
    noise = noise_like(dict(x=x, n=torch.arange(3)))
    assert 90 < noise['x'].std() < 110 and noise['n'].tolist() == [0, 1, 2]
    assert noise_like(torch.zeros(1, 3, 8, 8)).std() > 0.5
