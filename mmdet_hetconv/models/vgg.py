"""VGG as a detector's backbone, with a choice of convolution."""

from bisect import bisect
from collections.abc import Sequence

from mmcv.cnn import VGG
from mmdet.registry import MODELS
from mmengine.model import BaseModule
from mmengine.utils.dl_utils.parrots_wrapper import _BatchNorm

from mmdet_hetconv.layers.replace import replace_convs

from .stages import HET_CONV, check_depth, check_replaced, check_stages, stage_conv_cfgs


def replace_in_vgg(vgg: VGG, conv_cfg: dict | None, p: int | Sequence[int] | None) -> None:
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

    replace_convs(vgg.features, choose)
    ends = [*starts[1:], len(vgg.features)]
    stages = [vgg.features[a:b] for a, b in zip(starts, ends)]
    check_replaced(stages, cfgs)


@MODELS.register_module()
class HetVGG(VGG, BaseModule):
    """mmcv's VGG as a backbone, whose convolutions `conv_cfg` builds.

    A stage is its convolutions and the pooling behind them, so output i has
    stride 2**(i+1) and 64, 128, 256, 512, 512 channels. Under an FPN take
    `out_indices=(1, 2, 3, 4)`; for a detector on one map of stride 16, the
    classical VGG Faster R-CNN, `out_indices=(4,), with_last_pool=False`. The
    convolution on the image stays dense. Names of the layers are those of
    torchvision and of mmcv, so their pre-trained weights load.

    Args:
        depth (int): 11, 13, 16 or 19.
        with_bn (bool): batch norm behind every convolution.
        conv_cfg (dict): convolution. None is plain VGG.
        p (int | Sequence[int], optional): goes before conv_cfg's own; one
            per stage, 1 for a stage that is to stay dense.
        num_stages (int): 1 ... 5. Defaults to 5.
        dilations (Sequence[int], optional): one per stage; by default 1.
        out_indices (Sequence[int]): stages that are put out.
        frozen_stages (int): how many of the first stages are not trained;
            -1 and 0 for none.
        norm_eval (bool): keep the statistics of batch norms in training.
        init_cfg (dict, optional): by default Kaiming's initialisation.
        **kwargs: ceil_mode and with_last_pool of mmcv's VGG.

    Shape:
        input (B, 3, H, W); output a tuple of the maps.

    Raises:
        ValueError: an unknown depth, number of stages or output index; a
            `p` of another length; a conv_cfg that fits no layer.
    """

    def __init__(
        self,
        depth: int,
        with_bn: bool = False,
        *,
        conv_cfg: dict | None = HET_CONV,
        p: int | Sequence[int] | None = None,
        num_stages: int = 5,
        dilations: Sequence[int] | None = None,
        out_indices: Sequence[int] = (0, 1, 2, 3, 4),
        frozen_stages: int = -1,
        norm_eval: bool = True,
        init_cfg: dict | list | None = None,
        **kwargs,
    ):
        check_depth('HetVGG', depth, self.arch_settings)
        dilations = dilations or (1,) * num_stages
        check_stages('HetVGG', num_stages, 5, dilations=dilations)
        if not set(out_indices) <= set(range(num_stages)):
            raise ValueError(
                f'HetVGG: out_indices={tuple(out_indices)} has a stage that '
                f'num_stages={num_stages} does not have'
            )
        if frozen_stages not in range(-1, num_stages + 1):
            raise ValueError(f'HetVGG: frozen_stages={frozen_stages} is not in -1 ... {num_stages}')
        super().__init__(
            depth,
            with_bn,
            num_stages=num_stages,
            dilations=dilations,
            out_indices=out_indices,
            frozen_stages=frozen_stages,
            bn_eval=False,
            **kwargs,
        )
        self.norm_eval = norm_eval
        self.init_cfg = init_cfg or [
            dict(type='Kaiming', layer='Conv2d'),
            dict(type='Constant', val=1, layer='_BatchNorm'),
        ]
        replace_in_vgg(self, conv_cfg, p)
        # mmcv's VGG freezes its stages in train() only, and an optimizer is
        # made before that.
        self.train()

    def init_weights(self) -> None:
        """Initialise by init_cfg; mmcv's VGG has a rule of its own."""
        BaseModule.init_weights(self)

    def forward(self, x):
        outputs = super().forward(x)
        return outputs if isinstance(outputs, tuple) else (outputs,)

    def train(self, mode: bool = True) -> 'HetVGG':
        super().train(mode)
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self
