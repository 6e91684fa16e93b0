"""Code that compares sizes or asks for values is noticed."""

import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmdet_hetconv.trace import record


class Code(nn.Module):
    def __init__(self, code):
        super().__init__()
        self.conv, self.code = nn.Conv2d(3, 3, 1), code

    def forward(self, x):
        return self.code(self, x)


def branches(code):
    net = Code(code).eval()
    return net in record(net, lambda: net(torch.randn(2, 3, 4, 6))).branching


ASKING = dict(
    comparison=lambda net, x: x if x.shape[2] > 3 else -x,
    shapes=lambda net, x: x if x.shape == net.conv(x).shape else -x,
    size=lambda net, x: x if x.size(0) == 2 else -x,
    sum_of_sizes=lambda net, x: x if x.shape[2] + x.shape[3] < 7 else -x,
    reflected=lambda net, x: x if 1 + x.size(-1) >= 7 else -x,
    remainder=lambda net, x: F.pad(x, (0, 1)) if x.shape[-1] % 2 else x,
    smallest=lambda net, x: x * min(x.shape[-2:]),
    key=lambda net, x: {2: -x}.get(x.shape[0], x),
    number_of_values=lambda net, x: x if x.numel() else -x,
    length=lambda net, x: x if len(x) > 1 else -x,
    truth=lambda net, x: x if x.mean() > 0 else -x,
    item=lambda net, x: x if x.mean().item() > 0 else -x,
    integer=lambda net, x: x[: int(x.sum() > 0)],
    values=lambda net, x: x * sum(x.mean((0, 2, 3)).tolist()),
    equal=lambda net, x: x if torch.equal(x, x + 1) else -x,
)


@pytest.mark.parametrize('name', ASKING)
def test_code_that_may_do_something_else(name):
    assert branches(ASKING[name])


def views(net, x):
    batch, channels, height, width = x.shape
    y = net.conv(x).view(batch, channels, height * width).transpose(1, 2)
    y = y.reshape(-1, channels).view(batch, -1, channels)
    zeros = torch.zeros(batch, channels, height // 2, width // 2)
    up = F.interpolate(zeros, size=x.shape[-2:], mode='bilinear')
    return up + y.transpose(1, 2).view_as(x) + x.new_ones(x.shape) / height


def test_code_that_only_uses_sizes():
    assert not branches(views)
    assert not branches(lambda net, x: F.adaptive_avg_pool2d(F.pad(x, (1, 1)), x.shape[2:]))


def test_operations_compare_what_they_like():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.PixelShuffle(2)).eval()
    assert not record(net, lambda: net(torch.randn(2, 3, 6, 6))).branching


def test_sizes_that_are_kept_are_numbers():
    kept = []
    net = Code(lambda net, x: kept.append(x.shape) or x).eval()
    seen = record(net, lambda: net(torch.randn(2, 3, 4, 6)))
    assert kept[0] == (2, 3, 4, 6) and kept[0][2] + 1 == 5 and {4: 'a'}[kept[0][2]] == 'a'
    assert not seen.branching
    again = pickle.loads(pickle.dumps(kept[0][2]))
    assert again == 4 and type(again) is int
