"""From a detector's raw outputs to boxes, as mmdet decodes them, for a graph.

mmdet's own functions branch on values and number of boxes, which a graph
cannot: these compute the same from operators that it has.
"""

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.dense_heads import RPNHead
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.models.detectors import SingleStageDetector, TwoStageDetector
from mmdet.models.roi_heads import StandardRoIHead
from mmdet.models.roi_heads.bbox_heads.bbox_head import BBoxHead
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmdet.models.task_modules.coders import (
    DeltaXYWHBBoxCoder,
    DistancePointBBoxCoder,
    TBLRBBoxCoder,
)
from torch import Tensor, nn

from ..models.anatomy import dense_head
from .graph_ops import best, nms, pooled_regions

# What turns offsets into boxes, clipped unless its clip_border says otherwise.
CODERS = (DeltaXYWHBBoxCoder, DistancePointBBoxCoder, TBLRBBoxCoder)
ALL = 2**31 - 1  # of what has no upper limit


def _limit(number: int | None) -> int:
    return number if number is not None and number > 0 else ALL


def _per_prior(x: Tensor, channels: int) -> Tensor:
    """(1, priors * channels, H, W) to (H * W * priors, channels)."""
    return x[0].permute(1, 2, 0).reshape(-1, channels)


def _decoded(coder: Any, priors: Tensor, deltas: Tensor, shape: Tensor) -> Tensor:
    """Boxes (n, 4) in an image of height and width `shape` (2,)."""
    boxes = coder.decode(priors, deltas)
    if not coder.clip_border:
        return boxes
    return boxes.clamp(min=0).minimum(shape.flip(0).repeat(2))


def _kept(cfg: Any, boxes: Tensor, scores: Tensor, groups: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes, scores and groups after NMS, the best `max_per_img` of them."""
    apart = torch.zeros_like(groups) if cfg.nms.get('class_agnostic') else groups
    kept = nms(boxes, scores, apart, cfg.nms.iou_threshold, _limit(cfg.get('max_per_img')))
    return boxes[kept], scores[kept], groups[kept]


class DenseDecoding(nn.Module):
    """The boxes of a dense head.

    Args:
        head: one whose outputs mmdet decodes in the common way.

    Raises:
        ValueError: it has another way.

    Shape:
        maps: by output of the head and level, (1, channels, H, W).
        shape (2,): height and width of the image without padding.
        scale (4,): pixels of that image per pixel of the original, x, y, x, y.
        Returns boxes (k, 4) in the original, scores (k,), labels (k,).
    """

    def __init__(self, head: BaseDenseHead):
        super().__init__()
        check_decoding(head)
        self.head = head
        self.is_rpn = isinstance(head, RPNHead)

    def forward(
        self, maps: Sequence[Sequence[Tensor]], shape: Tensor, scale: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        head, cfg = self.head, self.head.test_cfg
        priors = head.prior_generator.grid_priors(
            [x.shape[-2:] for x in maps[0]], dtype=maps[0][0].dtype, device=maps[0][0].device
        )
        parts = []
        for level, (outputs, prior) in enumerate(zip(zip(*maps), priors)):
            raw = _per_prior(outputs[0], head.cls_out_channels)
            scores = raw.sigmoid() if head.use_sigmoid_cls else raw.softmax(-1)[:, :-1]
            classes = scores.shape[1]
            scores = scores.reshape(-1)
            # All regions of the RPN count, whatever their scores are.
            threshold = -1.0 if self.is_rpn else float(cfg.get('score_thr', 0))
            chosen = best(scores, threshold, _limit(cfg.get('nms_pre')))
            place = chosen // classes
            scores = scores[chosen]
            if len(outputs) > 2:
                scores = scores * _per_prior(outputs[2], 1)[place, 0].sigmoid()
            deltas = _per_prior(outputs[1], head.bbox_coder.encode_size)[place]
            group = torch.full_like(chosen, level) if self.is_rpn else chosen % classes
            parts.append((prior[place], deltas, scores, group))
        prior, deltas, scores, groups = (torch.cat(part) for part in zip(*parts))
        boxes = _decoded(head.bbox_coder, prior, deltas, shape) / scale
        smallest = cfg.get('min_bbox_size', -1)
        if smallest >= 0:
            sides = (boxes[:, 2:] - boxes[:, :2]).amin(1)
            large = best(sides, float(smallest), ALL)
            boxes, scores, groups = boxes[large], scores[large], groups[large]
        boxes, scores, groups = _kept(cfg, boxes, scores, groups)
        return boxes, scores, torch.zeros_like(groups) if self.is_rpn else groups


class RegionDecoding(nn.Module):
    """The boxes of a RoI head, from the RPN's.

    Args:
        head: with one stage, without masks.

    Raises:
        ValueError: it is not of that kind.

    Shape:
        features: levels of the neck, (1, C, H, W).
        regions (n, 4): in the image without padding; the rest as for
        :class:`DenseDecoding`.
    """

    def __init__(self, head: StandardRoIHead):
        super().__init__()
        check_regions(head)
        self.head = head
        self.levels = head.bbox_roi_extractor.num_inputs

    def forward(
        self, features: Sequence[Tensor], regions: Tensor, shape: Tensor, scale: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        head, cfg = self.head.bbox_head, self.head.test_cfg
        maps = list(features[: self.levels])
        raw, deltas = head(self._pooled(maps, regions))
        scores = raw.softmax(-1)[:, :-1]
        classes = scores.shape[1]
        scores = scores.reshape(-1)
        chosen = best(scores, float(cfg.score_thr), ALL)
        place, label = chosen // classes, chosen % classes
        deltas = deltas.reshape(-1, 1 if head.reg_class_agnostic else classes, 4)
        deltas = deltas[place, torch.zeros_like(label) if head.reg_class_agnostic else label]
        boxes = _decoded(head.bbox_coder, regions[place], deltas, shape) / scale
        return _kept(cfg, boxes, scores[chosen], label)

    def _pooled(self, maps: list[Tensor], regions: Tensor) -> Tensor:
        extractor = self.head.bbox_roi_extractor
        layers = list(extractor.roi_layers)
        rois = torch.cat([torch.zeros_like(regions[:, :1]), regions], dim=1)
        x = pooled_regions(
            maps,
            regions,
            extractor.map_roi_levels(rois, len(maps)),
            [layer.spatial_scale for layer in layers],
            list(layers[0].output_size),
            layers[0].sampling_ratio,
            layers[0].aligned,
        )
        return self.head.shared_head(x) if self.head.with_shared_head else x


class Decoding(nn.Module):
    """The boxes of a detector, from what a graph of export_onnx() puts out.

    Args:
        detector: of mmdet, in inference mode, on the CPU.

    Raises:
        ValueError: mmdet decodes its outputs in a way of their own.

    Shape:
        features: levels of the neck, of a two-stage detector only; the rest
        as for :class:`DenseDecoding`.
    """

    def __init__(self, detector: nn.Module):
        super().__init__()
        kind: Any = type(detector)
        if kind.predict not in (SingleStageDetector.predict, TwoStageDetector.predict):
            raise ValueError(f'{kind.__name__} finds boxes in a way of its own')
        name, head = dense_head(detector)
        self.dense = DenseDecoding(head)
        self.regions = RegionDecoding(detector.roi_head) if name == 'rpn_head' else None

    def forward(
        self,
        features: Sequence[Tensor],
        maps: Sequence[Sequence[Tensor]],
        shape: Tensor,
        scale: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        if self.regions is None:
            return self.dense(maps, shape, scale)
        regions, _, _ = self.dense(maps, shape, torch.ones_like(scale))
        return self.regions(features, regions, shape, scale)


def check_decoding(head: BaseDenseHead) -> None:
    """Raise ValueError unless mmdet decodes a dense head in the common way."""
    common = (BaseDenseHead, RPNHead)
    for name in ('predict_by_feat', '_predict_by_feat_single', '_bbox_post_process'):
        if all(getattr(type(head), name, None) is not getattr(c, name) for c in common):
            raise ValueError(f'{type(head).__name__} decodes its outputs in a way of its own')
    if getattr(head.loss_cls, 'custom_cls_channels', False):
        raise ValueError(f'{type(head).__name__}: its loss has scores of its own')
    _check_coder(head)
    _check_nms(head.test_cfg)


def check_regions(head: StandardRoIHead) -> None:
    """Raise ValueError unless it is a common RoI head of one stage, without masks."""
    kinds = {
        head: (StandardRoIHead, ('predict', 'predict_bbox', '_bbox_forward')),
        head.bbox_head: (BBoxHead, ('predict_by_feat', '_predict_by_feat_single')),
        head.bbox_roi_extractor: (SingleRoIExtractor, ('forward', 'map_roi_levels')),
    }
    for module, (common, names) in kinds.items():
        for name in names:
            if getattr(type(module), name, None) is not getattr(common, name):
                raise ValueError(f'{type(module).__name__} finds boxes in a way of its own')
    if head.with_mask or head.bbox_head.custom_cls_channels or not head.bbox_head.with_reg:
        raise ValueError(f'{type(head).__name__} has more, or less, than scores and boxes')
    for layer in head.bbox_roi_extractor.roi_layers:
        if type(layer).__name__ != 'RoIAlign' or layer.pool_mode != 'avg':
            raise ValueError(f'regions are cut out by {layer}, not by a RoIAlign of means')
    _check_coder(head.bbox_head)
    _check_nms(head.test_cfg)


def _check_coder(head: nn.Module) -> None:
    coder = getattr(head, 'bbox_coder', None)
    if type(coder) not in CODERS:
        kind = type(coder).__name__
        raise ValueError(f'{type(head).__name__}: a graph does not decode boxes of its {kind}')


def _check_nms(cfg: Any) -> None:
    nms_cfg = dict(cfg.nms)
    unknown = nms_cfg.keys() - {'type', 'iou_threshold', 'class_agnostic'}
    if nms_cfg.get('type', 'nms') != 'nms' or unknown:
        raise ValueError(f'a graph has only nms with iou_threshold, the config has nms={nms_cfg}')
