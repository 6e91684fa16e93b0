"""Conversion of networks of several families: it ends nearer to the dense one than it began."""

import copy

import pytest
import torch
from torch import nn

from mmdet_hetconv.convert import calibrate, convert_model, distil
from mmdet_hetconv.convert.pairing import load_projected

from .test_calibration import smooth_images

WIDTH = 16


def layer(activation, bias=True, norm=False):
    conv = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=bias)
    return nn.Sequential(conv, *([nn.BatchNorm2d(WIDTH)] if norm else []), activation())


def plain(activation, **options):
    stem = nn.Conv2d(3, WIDTH, 3, padding=1, bias=options.get('bias', True))
    layers = [layer(activation, **options) for _ in range(3)]
    return nn.Sequential(stem, *layers, nn.Conv2d(WIDTH, 6, 1))


class SqueezeExcite(nn.Module):
    """A block whose channels are weighed by a gate, beside a shortcut."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = layer(nn.SiLU, norm=True), layer(nn.SiLU, norm=True)
        self.squeeze = nn.Conv2d(WIDTH, 4, 1)
        self.excite = nn.Conv2d(4, WIDTH, 1)

    def forward(self, x):
        y = self.conv2(self.conv1(x))
        gate = self.excite(torch.relu(self.squeeze(y.mean((2, 3), keepdim=True))))
        return x + y * gate.sigmoid()


class Concatenating(nn.Module):
    """Halves of the channels go different ways and are concatenated, as in YOLO's C2f."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(WIDTH // 2, WIDTH // 2, 3, padding=1)
        self.conv2 = nn.Conv2d(WIDTH // 2, WIDTH // 2, 3, padding=1)
        self.last = nn.Conv2d(2 * WIDTH, WIDTH, 3, padding=1)

    def forward(self, x):
        parts = list(x.chunk(2, 1))
        for conv in (self.conv1, self.conv2):
            parts.append(nn.functional.silu(conv(parts[-1])))
        return nn.functional.silu(self.last(torch.cat(parts, 1)))


def between_stem_and_head(block):
    return nn.Sequential(nn.Conv2d(3, WIDTH, 3, padding=1), block(), nn.Conv2d(WIDTH, 6, 1))


FAMILIES = {
    'no norms': lambda: plain(nn.ReLU),
    'no biases': lambda: plain(nn.ReLU, bias=False),
    'norms, no biases': lambda: plain(nn.ReLU, bias=False, norm=True),
    'LeakyReLU': lambda: plain(lambda: nn.LeakyReLU(0.1)),
    'SiLU': lambda: plain(nn.SiLU),
    'PReLU': lambda: plain(lambda: nn.PReLU(WIDTH)),
    'squeeze and excitation': lambda: between_stem_and_head(SqueezeExcite),
    'concatenations': lambda: between_stem_and_head(Concatenating),
}


def distance(het, dense, images):
    """The squared error of the outputs on images that nothing was fitted to, relative."""
    with torch.no_grad():
        wanted = dense(images)
        return ((het(images) - wanted).square().sum() / wanted.square().sum()).item()


@pytest.mark.parametrize('family', FAMILIES)
@pytest.mark.parametrize('learn', [None, 'all'])
def test_each_step_ends_nearer_to_the_dense_network(family, learn, monkeypatch):
    monkeypatch.setattr('mmdet_hetconv.convert.distillation.batches.IMAGES', 16)
    torch.manual_seed(0)
    dense = FAMILIES[family]()
    with torch.no_grad():  # norms that have seen images
        dense.train()(smooth_images(32, seed=7))
    dense.eval()
    het = copy.deepcopy(dense)
    convert_model(het, p=2)
    batches = list(smooth_images(48).split(8))
    unseen = smooth_images(32, seed=1)
    load_projected(dense, het)
    projected = distance(het, dense, unseen)
    calibrate(dense, het, batches)
    calibrated = distance(het, dense, unseen)
    report = distil(dense, het, batches, steps=60, learn=learn)
    distilled = distance(het, dense, unseen)
    assert calibrated < projected
    assert distilled < projected
    if learn == 'all':  # what comes near at once may not gain: it stays as it was
        assert report.after <= report.before
    else:
        assert report.after < report.before
        assert distilled < calibrated
