"""Region proposal head with a choice of convolution."""

from mmdet.models.dense_heads import RPNHead
from mmdet.registry import MODELS

from mmdet_hetconv.layers.replace import replace_convs

from .stages import HET_CONV, check_replaced


@MODELS.register_module()
class HetRPNHead(RPNHead):
    """mmdet's RPNHead, whose 3 x 3 convolutions are what `conv_cfg` builds.

    The stock class has no conv_cfg. The 1 x 1 predictors stay dense.

    Args:
        *args: the stock class's.
        conv_cfg (dict): convolution. None is the stock class.
        **kwargs: the stock class's.

    Raises:
        ValueError: the conv_cfg does not fit the channels.
    """

    def __init__(self, *args, conv_cfg: dict | None = HET_CONV, **kwargs):
        self.conv_cfg = conv_cfg
        super().__init__(*args, **kwargs)

    def _init_layers(self) -> None:
        super()._init_layers()
        if self.conv_cfg is None:
            return

        def choose(name, conv):
            mine = name.startswith('rpn_conv')
            return self.conv_cfg if mine else 'it is a predictor'

        replace_convs(self, choose)
        check_replaced([self], [self.conv_cfg])
