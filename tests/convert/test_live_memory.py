import torch
from torch import nn

from mmdet_hetconv.convert.calibration.live_memory import held_by_a_pass

MAP = 4 * 8 * 10 * 10  # bytes of one feature map below


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(8, 8, 1)
        self.relu = nn.ReLU(inplace=True)
        self.b = nn.Conv2d(8, 8, 1)
        self.c = nn.Conv2d(8, 8, 1)

    def forward(self, x):
        x = self.relu(self.a(x))  # one map: in place
        return self.c(self.b(x)) + x


def peak_at(name):
    net, image = Residual(), torch.rand(1, 8, 10, 10)
    peak = held_by_a_pass(net, {name: net.get_submodule(name)}, lambda: net(image))
    assert not net.a._forward_hooks and not net.a._forward_pre_hooks
    return peak


def test_what_is_alive_in_front_of_a_module():
    assert peak_at('a') == 0  # the image is the caller's
    assert peak_at('b') == MAP
    assert peak_at('c') == 2 * MAP  # the short-cut is held too
