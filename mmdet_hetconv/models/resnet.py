"""ResNet with a p of its own for every stage."""

from collections.abc import Sequence

from mmdet.models.backbones import ResNet
from mmdet.registry import MODELS
from torch import nn

from .stages import HET_CONV, check_depth, check_replaced, check_stages, stage_conv_cfgs


@MODELS.register_module()
class HetResNet(ResNet):
    """mmdet's ResNet, where each stage has a conv_cfg of its own.

    The 3 x 3 convolutions of the blocks become what `conv_cfg` builds; stem
    and 1 x 1 convolutions stay dense. Names of the layers and pre-trained
    weights are the stock class's. With one p for all stages the stock
    class does the same, by its `conv_cfg`.

    Args:
        depth (int): 18, 34, 50, 101 or 152.
        conv_cfg (dict): convolution. None is the stock class.
        p (int | Sequence[int], optional): goes before conv_cfg's own; one
            per stage, 1 for a stage that is to stay dense.
        num_stages (int): 1 ... 4. Defaults to 4.
        strides, dilations (Sequence[int]): one per stage.
        **kwargs: the stock class's.

    Shape:
        input (B, 3, H, W); output the stages at `out_indices`.

    Raises:
        ValueError: an unknown depth or number of stages; a `p` of another
            length; a conv_cfg that fits no layer of its stages.

    Example:
        >>> model = HetResNet(50, p=(1, 4, 4, 8))
    """

    def __init__(
        self,
        depth: int,
        *,
        conv_cfg: dict | None = HET_CONV,
        p: int | Sequence[int] | None = None,
        num_stages: int = 4,
        strides: Sequence[int] = (1, 2, 2, 2),
        dilations: Sequence[int] = (1, 1, 1, 1),
        **kwargs,
    ):
        check_depth('HetResNet', depth, self.arch_settings)
        by_stage = dict(strides=strides, dilations=dilations)
        check_stages('HetResNet', num_stages, 4, **by_stage)
        self.stage_conv_cfgs = stage_conv_cfgs(conv_cfg, p, num_stages)
        super().__init__(depth, num_stages=num_stages, **by_stage, **kwargs)
        stages = [getattr(self, name) for name in self.res_layers]
        check_replaced(stages, self.stage_conv_cfgs)

    def make_res_layer(self, **kwargs) -> nn.Module:
        kwargs['conv_cfg'] = self.stage_conv_cfgs[len(self.res_layers)]
        return super().make_res_layer(**kwargs)

    def train(self, mode: bool = True) -> 'HetResNet':
        """Returns itself as nn.Module does; the stock class returns None."""
        super().train(mode)
        return self
