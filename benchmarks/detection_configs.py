"""The detectors of detection.py: configs of the zoo, one schedule for all."""

from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config

from mmdet_hetconv.comfort.data.own_data import use_own_data
from mmdet_hetconv.layers import HetConvOptimWrapperConstructor
from mmdet_hetconv.workflow.config.config_parts import leaf_datasets, type_name
from mmdet_hetconv.workflow.config.configs import read_config

CONFIGS = Path(__file__).parents[1] / 'configs'
DETECTORS = dict(
    faster_rcnn_r18='faster_rcnn_het_r18',
    faster_rcnn_r50='faster_rcnn_het_r50',
    ssd300='ssd300_het_vgg16',
)
# Whose convolutions are exchanged: how these parts' keys in a config end.
WHERE = {
    'full': ('backbone', 'neck', 'head'),
    'backbone': ('backbone',),
    'backbone+neck': ('backbone', 'neck'),
    'backbone+head': ('backbone', 'head'),
}
WARM_UP = 50  # iterations
REDUCED_WIDTH = 64
# For a processor core: half the channels of a ResNet-18, and fewer RoIs, which
# take most of the time there. Anchors and levels are those for images of half
# the size.
REDUCED_FASTER_RCNN = dict(
    backbone=dict(base_channels=32),
    neck=dict(out_channels=REDUCED_WIDTH),
    rpn_head=dict(
        in_channels=REDUCED_WIDTH, feat_channels=REDUCED_WIDTH, anchor_generator=dict(scales=[4])
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(
            roi_layer=dict(sampling_ratio=1), out_channels=REDUCED_WIDTH, finest_scale=28
        ),
        bbox_head=dict(in_channels=REDUCED_WIDTH, fc_out_channels=256),
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=128)),
        rpn_proposal=dict(nms_pre=150, max_per_img=100),
        rcnn=dict(sampler=dict(num=32)),
    ),
    test_cfg=dict(rpn=dict(nms_pre=150, max_per_img=100)),
)
# SSD's VGG learns next to nothing from scratch in a short schedule: it has no
# batch norm. So the same ResNet, as far as stride 16, is in its place; maps,
# anchors and head are SSD300's.
SSD_WIDTHS = (64, 128, 128, 64, 64, 64)
REDUCED_SSD = dict(
    backbone=dict(
        _delete_=True,
        type='HetResNet',
        depth=18,
        base_channels=32,
        num_stages=3,
        strides=(1, 2, 2),
        dilations=(1, 1, 1),
        out_indices=(1, 2),
        norm_eval=False,
        conv_cfg=dict(type='HetConv', p=4),
    ),
    neck=dict(in_channels=SSD_WIDTHS[:2], out_channels=SSD_WIDTHS, l2_norm_scale=None),
    bbox_head=dict(in_channels=SSD_WIDTHS),
)


@dataclass(frozen=True)
class Setting:
    """What all runs of a comparison share.

    Attributes:
        detector: a key of DETECTORS.
        data_root: a data set in COCO or VOC layout.
        where: a key of WHERE.
        reduced: the narrower network, for a processor core.
        image: greatest width and height; None is the config's.
        lr_by_density: HetConv layers have learning rates of their own.
    """

    detector: str
    data_root: str
    where: str
    reduced: bool
    image: tuple[int, int] | None
    batch_size: int
    workers: int
    lr_by_density: bool = False

    def config(
        self,
        conv_cfg: dict | None,
        epochs: int,
        rate: float,
        seed: int,
        load_from: str | None = None,
    ) -> Config:
        """The config of one training.

        Args:
            conv_cfg: of all convolutions that are exchanged; None is dense.
            epochs: of the schedule, which warms up and decays to 0.
            rate: the peak learning rate.
            seed: of weights and order.
            load_from: a checkpoint to start from; from scratch without one.
        """
        cfg = self._zoo_config()
        for key, part in cfg.model.items():
            exchanged = key.endswith(WHERE[self.where])
            _set_conv(part, conv_cfg if exchanged else None)
        use_own_data(cfg, self.data_root)
        if self.image:
            _set_image(cfg, self.image)
        self._set_data(cfg)
        _set_schedule(cfg, epochs, rate)
        if self.lr_by_density:
            constructor = HetConvOptimWrapperConstructor.__name__
            cfg.optim_wrapper.constructor = constructor
        cfg.load_from = load_from
        cfg.randomness = dict(seed=seed)
        return cfg

    def _zoo_config(self) -> Config:
        """Of the zoo, without pre-trained weights."""
        name = f'{DETECTORS[self.detector]}_full.py'
        cfg = read_config(str(CONFIGS / name))
        cfg.model.backbone.init_cfg = None
        is_ssd = self.detector == 'ssd300'
        if not is_ssd:
            cfg.model.backbone.merge(dict(frozen_stages=-1, norm_eval=False))
        if self.reduced:
            widths = cfg.model.neck.in_channels
            reduced = REDUCED_SSD if is_ssd else REDUCED_FASTER_RCNN
            # A copy: the merge takes _delete_ out of what it is given.
            cfg.merge_from_dict(dict(model=deepcopy(reduced)))
            if not is_ssd:
                cfg.model.neck.in_channels = [n // 2 for n in widths]
        return cfg

    def _set_data(self, cfg: Config) -> None:
        loader = cfg.train_dataloader
        loader.batch_size = self.batch_size
        if 'times' in loader.dataset:
            loader.dataset.times = 1  # an epoch is an epoch
        for name in ('train', 'val', 'test'):
            loader = cfg[f'{name}_dataloader']
            loader.num_workers = self.workers
            loader.persistent_workers = self.workers > 0
        cfg.val_dataloader = cfg.val_evaluator = cfg.val_cfg = None
        for _, leaf in leaf_datasets(cfg.test_dataloader.dataset, ''):
            pack = leaf.pipeline[-1]
            # CocoMetric's true boxes where there is no COCO file.
            pack.meta_keys = (*pack.meta_keys, 'instances')
        if cfg.test_evaluator.type == 'CocoMetric':
            cfg.test_evaluator.classwise = True
        else:
            coco = dict(type='CocoMetric', metric='bbox', classwise=True)
            cfg.test_evaluator = [cfg.test_evaluator, coco]


def _set_conv(part, conv_cfg: dict | None) -> None:
    """Another convolution in place of every HetConv in a part's config."""
    if isinstance(part, list | tuple):
        for value in part:
            _set_conv(value, conv_cfg)
    elif isinstance(part, dict):
        old = part.get('conv_cfg')
        if old is not None and old['type'] == 'HetConv':
            part['conv_cfg'] = conv_cfg and dict(conv_cfg)
        for value in part.values():
            _set_conv(value, conv_cfg)


def _set_image(cfg: Config, image: tuple[int, int]) -> None:
    for name in ('train', 'test'):
        dataset = cfg[f'{name}_dataloader'].dataset
        for _, leaf in leaf_datasets(dataset, ''):
            for step in leaf.pipeline:
                if type_name(step) == 'Resize':
                    step['scale'] = image


def _set_schedule(cfg: Config, epochs: int, rate: float) -> None:
    cfg.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=epochs)
    cfg.optim_wrapper = dict(
        type='OptimWrapper',
        optimizer=dict(type='AdamW', lr=rate, weight_decay=0.05),
        clip_grad=dict(max_norm=10),
    )
    cfg.param_scheduler = [
        dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=WARM_UP),
        dict(type='CosineAnnealingLR', T_max=epochs, by_epoch=True, convert_to_iter_based=True),
    ]
    cfg.default_hooks.checkpoint.update(interval=1, max_keep_ckpts=1)
    cfg.default_hooks.logger.interval = 25
