"""mmengine's initialisers on layers that consist of several convolutions.

An initialiser such as Kaiming takes the fans from a weight's shape. For the
kernels of one group, or of one branch of a HetConv filter, the shape tells
something else, so it is shown a convolution with the layer's true fans.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

Initialise = Callable[[nn.Module], None]


def is_initialiser(fn: Initialise) -> bool:
    """Whether a function handed to nn.Module.apply is an initialiser of mmengine."""
    return getattr(fn, '__module__', None) == 'mmengine.model.weight_init'


@torch.no_grad()
def draw(
    fn: Initialise, name: str, fan_in: int, fan_out: int, weight: Tensor, bias: Tensor | None = None
) -> None:
    """Initialise a weight and a bias in place, as of a layer with these fans.

    What the initialiser leaves alone, because it is for other layers, stays.

    Args:
        name: the layer's class. The initialiser may be for it or for Conv2d.
        fan_in: inputs that one output depends on.
        fan_out: outputs that one input contributes to.
        weight: of any shape, at most fan_in * fan_out numbers.
        bias: at most fan_out numbers.
    """
    # mmengine compares the names of a module's class and of its bases.
    conv = nn.utils.skip_init(
        type(name, (nn.Conv2d,), {}), fan_in, fan_out, 1, device=weight.device, dtype=weight.dtype
    )
    for parameter in conv.parameters():
        parameter.fill_(torch.nan)
    fn(conv)
    for mine, drawn in ((weight, conv.weight), (bias, conv.bias)):
        if mine is not None and not drawn.isnan().any():
            mine.copy_(drawn.flatten()[: mine.numel()].view(mine.shape))
