"""VGG as a detector's backbone, with a choice of convolution."""

from bisect import bisect
from collections.abc import Sequence

from mmcv.cnn import VGG

from mmdet_hetconv.layers.switch import switch_convs

from .stages import check_switched, stage_conv_cfgs


def switch_vgg(
    vgg: VGG, conv_cfg: dict | None, p: int | Sequence[int] | None
) -> None:
    """Switch the convolutions of an mmcv VGG, stage by stage.

    What stands behind the last stage counts as part of it.

    Raises:
        ValueError: `p` has another length than the stages; a conv_cfg fits
            no convolution of its stages.
    """
    cfgs = stage_conv_cfgs(conv_cfg, p, len(vgg.stage_blocks))
    starts = [start for start, _ in vgg.range_sub_modules]

    def choose(name, conv):
        return cfgs[bisect(starts, int(name)) - 1] or 'no conv_cfg was given'

    switch_convs(vgg.features, choose)
    ends = [*starts[1:], len(vgg.features)]
    stages = [vgg.features[a:b] for a, b in zip(starts, ends)]
    check_switched(stages, cfgs)
