"""SSD's head with a choice of convolution for its predictors."""

from mmdet.models.dense_heads import SSDHead
from mmdet.registry import MODELS

from mmdet_hetconv.layers.replace import replace_convs

from .stages import HET_CONV, check_replaced, largest_p


@MODELS.register_module()
class HetSSDHead(SSDHead):
    """mmdet's SSDHead, whose 3 x 3 predictors are what `conv_cfg` builds.

    The stock class takes a conv_cfg and uses it for towers only, which SSD
    does not have. How many filters a predictor has follows from the anchors
    and the number of classes, so a HetConv's p is cut to what they allow: at
    p=4, 486 filters (6 anchors, 81 classes) have p=2. It can predict under
    mmdet 3.3, where the stock class fails.

    Args:
        *args: the stock class's.
        conv_cfg (dict): convolution. None is the stock class.
        **kwargs: the stock class's.

    Raises:
        ValueError: the conv_cfg does not fit any predictor.
    """

    # mmdet 3.3's prediction reads it, the stock SSDHead does not have it and
    # fails there (mmdetection #11063).
    loss_cls = None

    def __init__(self, *args, conv_cfg: dict | None = HET_CONV, **kwargs):
        super().__init__(*args, conv_cfg=conv_cfg, **kwargs)

    def _init_layers(self) -> None:
        super()._init_layers()
        if self.conv_cfg is None:
            return

        def choose(name, conv):
            if not name.startswith(('cls_convs', 'reg_convs')):
                return 'it is not a predictor'
            return largest_p(self.conv_cfg, conv.in_channels, conv.out_channels)

        replace_convs(self, choose)
        check_replaced([self], [self.conv_cfg])
