"""Mean and variance per channel over batches."""

import torch
from torch import Tensor


class Moments:
    """Running mean and variance of feature maps, merged in float64."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = torch.zeros((), dtype=torch.double)
        # Of the deviations from the mean.
        self.squares = torch.zeros((), dtype=torch.double)

    def add(self, x: Tensor) -> None:
        """Add one batch.

        Shape:
            x: (B, C, ...).
        """
        count = x.numel() // x.shape[1] if x.shape[1] else 0
        if count == 0:
            return
        axes = [axis for axis in range(x.dim()) if axis != 1]
        var, mean = torch.var_mean(x.float(), dim=axes, correction=0)
        mean, squares = mean.double(), var.double() * count
        total = self.count + count
        step = mean - self.mean
        self.mean = self.mean + step * (count / total)
        self.squares = self.squares + squares + step**2 * (self.count * count / total)
        self.count = total

    @property
    def var(self) -> Tensor:
        """The biased variance, (C,)."""
        return self.squares / self.count
