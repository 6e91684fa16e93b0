"""MobileNet (V1), each depth-wise + point-wise pair as one convolution.

Sources: Howard et al., "MobileNets", 2017, table 1; Singh et al., "HetConv",
CVPR 2019, section 4.
"""

from collections.abc import Sequence

from mmcv.cnn import ConvModule, DepthwiseSeparableConvModule
from mmdet.models.utils import make_divisible
from mmdet.registry import MODELS
from mmengine.model import BaseModule, Sequential
from mmengine.utils.dl_utils.parrots_wrapper import _BatchNorm
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .stages import check_replaced, largest_p, stage_conv_cfgs


@MODELS.register_module()
class HetMobileNet(BaseModule):
    """MobileNet whose layers, behind the first, `conv_cfg` builds.

    Output i is stage i, with stride 2**(i+1) and 64, 128, 256, 512, 1024
    channels times `widen_factor`, rounded to multiples of 8.

    Args:
        widen_factor (float): width multiplier. Defaults to 1.
        conv_cfg (dict): convolution of every layer. A layer with fewer
            channels than p takes the largest p that divides both p and
            its channels, so a large p is one K x K kernel per filter
            everywhere. None is MobileNet itself: depth-wise + point-wise
            pairs with a norm and an activation behind both.
        p (int | Sequence[int], optional): goes before conv_cfg's own; one
            per stage.
        out_indices (Sequence[int]): stages, of 0 ... 4, that are put out.
        frozen_stages (int): 0 freezes the first convolution, i the stages
            before i too; -1 freezes nothing.
        norm_cfg (dict): norm layer.
        act_cfg (dict): activation.
        norm_eval (bool): keep the statistics of batch norms in training.
        with_cp (bool): recompute each layer in the backward pass, to save
            memory.
        init_cfg (dict, optional): by default Kaiming's initialisation.

    Shape:
        input (B, 3, H, W); output a tuple of the maps.

    Raises:
        ValueError: a stage out of range; a `p` of another length than 5; a
            conv_cfg that fits no layer.
    """

    # (filters, stride) of each stage's layers
    arch_settings = (
        ((64, 1),),
        ((128, 2), (128, 1)),
        ((256, 2), (256, 1)),
        ((512, 2), *((512, 1),) * 5),
        ((1024, 2), (1024, 1)),
    )

    def __init__(
        self,
        widen_factor: float = 1.0,
        *,
        conv_cfg: dict | None = dict(type='HetConv', p=64),  # noqa: B006
        p: int | Sequence[int] | None = None,
        out_indices: Sequence[int] = (1, 2, 3, 4),
        frozen_stages: int = -1,
        norm_cfg: dict = dict(type='BN'),  # noqa: B006
        act_cfg: dict = dict(type='ReLU'),  # noqa: B006
        norm_eval: bool = False,
        with_cp: bool = False,
        init_cfg: dict | list | None = None,
    ):
        super().__init__(
            init_cfg
            or [
                dict(type='Kaiming', layer='Conv2d'),
                dict(type='Constant', val=1, layer=['_BatchNorm', 'GroupNorm']),
            ]
        )
        stages = range(len(self.arch_settings))
        if not set(out_indices) <= set(stages):
            raise ValueError(
                f'HetMobileNet: out_indices={tuple(out_indices)} has a stage '
                f'that is not in {tuple(stages)}'
            )
        if frozen_stages not in range(-1, len(stages) + 1):
            raise ValueError(
                f'HetMobileNet: frozen_stages={frozen_stages} is not in -1 ... {len(stages)}'
            )
        self.out_indices = out_indices
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        self.with_cp = with_cp
        norm_and_act = dict(norm_cfg=norm_cfg, act_cfg=act_cfg)

        channels = make_divisible(32 * widen_factor, 8)
        self.conv1 = ConvModule(3, channels, 3, stride=2, padding=1, **norm_and_act)
        cfgs = stage_conv_cfgs(conv_cfg, p, len(stages))
        for i, (layers, cfg) in enumerate(zip(self.arch_settings, cfgs)):
            stage = Sequential()
            for width, stride in layers:
                filters = make_divisible(width * widen_factor, 8)
                stage.append(self._make_layer(cfg, channels, filters, stride, norm_and_act))
                channels = filters
            self.add_module(f'layer{i + 1}', stage)
        check_replaced(self._stages(), cfgs)
        self._freeze_stages()

    @staticmethod
    def _make_layer(
        conv_cfg: dict | None, in_channels: int, out_channels: int, stride: int, norm_and_act: dict
    ) -> nn.Module:
        shape = (in_channels, out_channels, 3, stride, 1)
        if conv_cfg is None:
            return DepthwiseSeparableConvModule(*shape, **norm_and_act)
        conv_cfg = largest_p(conv_cfg, in_channels, out_channels)
        return ConvModule(*shape, conv_cfg=conv_cfg, **norm_and_act)

    def _stages(self) -> list[nn.Module]:
        numbers = range(1, len(self.arch_settings) + 1)
        return [getattr(self, f'layer{i}') for i in numbers]

    def _freeze_stages(self) -> None:
        frozen = [self.conv1, *self._stages()][: self.frozen_stages + 1]
        for module in frozen:
            module.eval()
            module.requires_grad_(False)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = self.conv1(x)
        outputs = []
        for i, stage in enumerate(self._stages()):
            for layer in stage:
                if self.with_cp and x.requires_grad:
                    x = checkpoint(layer, x, use_reentrant=False)
                else:
                    x = layer(x)
            if i in self.out_indices:
                outputs.append(x)
        return tuple(outputs)

    def train(self, mode: bool = True) -> 'HetMobileNet':
        super().train(mode)
        self._freeze_stages()
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self
