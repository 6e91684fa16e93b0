"""Batch-norm statistics that follow a conversion."""

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from .moments import Moments


def running_statistics(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """The running mean and variance of a norm that tracks them, (C,) each."""
    mean, var = norm.running_mean, norm.running_var
    assert mean is not None and var is not None
    return mean, var


class NormFit:
    """One batch norm's inputs in the converted network."""

    def __init__(self, norm: _BatchNorm, dense: _BatchNorm, theirs: Moments):
        self.norm = norm
        self.dense = dense
        self.theirs = theirs
        self.mine = Moments()

    def add(self, batch: int, call: int, x: Tensor) -> None:
        """Take in the norm's input, whose values may come with any call."""
        self.mine.add(x)

    def finish(self) -> None:
        """Move the running statistics by what the conversion changed.

        The dense network's statistics come from far more images than those
        at hand. So they are not replaced: their mean gets the difference and
        their variance the ratio that the conversion makes on these images.
        """
        mine, theirs = self.mine, self.theirs
        if not (mine.count and theirs.count):
            return
        # A channel that is constant here says nothing about its variance.
        varies = (theirs.var > 0) & (mine.var > 0)
        ratio = torch.where(varies, mine.var / theirs.var, 1.0)
        dense_mean, dense_var = running_statistics(self.dense)
        mean, var = running_statistics(self.norm)
        mean.copy_(dense_mean + (mine.mean - theirs.mean))
        var.copy_(dense_var * ratio)
