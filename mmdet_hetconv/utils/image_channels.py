"""The number of image channels that a detector takes.

Its own layers say so: 3 for colour, 1 for grey, 4 with a mask or an infrared
channel. A data preprocessor does not, whose one mean stands for any number.
"""

from mmengine.model import BaseModule
from torch import nn


def image_channels(model: nn.Module) -> int:
    """Channels of the images that a detector, or a backbone of mmdet, takes.

    That is what the first convolution of the backbone takes, trained or
    deployed; 3 where there is none. Other models may hold their layers in
    any order, so theirs counts as 3.
    """
    first = getattr(model, 'backbone', model if isinstance(model, BaseModule) else None)
    pixels = 1
    for module in first.modules() if first else ():
        if type(module).__name__ == 'Focus':
            pixels = 4  # YOLOX lays them side by side as channels
        if hasattr(module, 'in_channels') and hasattr(module, 'kernel_size'):
            return module.in_channels // pixels
    return 3
