"""SSD's VGG with a choice of convolution."""

from collections.abc import Sequence

from mmdet.models.backbones import SSDVGG
from mmdet.registry import MODELS

from .stages import HET_CONV, check_depth
from .vgg import replace_in_vgg


@MODELS.register_module()
class HetSSDVGG(SSDVGG):
    """mmdet's SSDVGG, whose convolutions are what `conv_cfg` builds.

    Indices of the features, names of the layers and pre-trained weights are
    the stock class's. The first convolution (3 channels) and the last (1 x 1)
    stay dense.

    Args:
        depth (int): 11, 13, 16 or 19.
        conv_cfg (dict): convolution. None is the stock class.
        p (int | Sequence[int], optional): goes before conv_cfg's own; one
            per stage, the dilated convolution behind the last one taken as
            part of it.
        **kwargs: the stock class's.

    Shape:
        input (B, 3, H, W); output the maps at `out_feature_indices`.
    """

    def __init__(
        self,
        depth: int,
        *args,
        conv_cfg: dict | None = HET_CONV,
        p: int | Sequence[int] | None = None,
        **kwargs,
    ):
        check_depth('HetSSDVGG', depth, self.arch_settings)
        super().__init__(depth, *args, **kwargs)
        replace_in_vgg(self, conv_cfg, p)

    def train(self, mode: bool = True) -> 'HetSSDVGG':
        """Returns itself as nn.Module does; the stock class returns None."""
        super().train(mode)
        return self
