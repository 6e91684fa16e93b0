"""Operators of decoding that torch has not, or not for a graph.

Each is torch's operator with an ONNX translation beside it; the sizes of what
they return depend on the values, and stay open in a graph.
"""

from typing import Any

import torch

# The operators that mmdet itself decodes with.
from mmdet.models.dense_heads.base_dense_head import batched_nms
from mmdet.models.roi_heads.roi_extractors.base_roi_extractor import ops
from torch import Tensor

LIBRARY = 'mmdet_hetconv'


@torch.library.custom_op(f'{LIBRARY}::best', mutates_args=())
def best(scores: Tensor, threshold: float, most: int) -> Tensor:
    """Indices of the highest scores above a threshold, the highest first.

    Shape:
        scores (n,); returns (k,), int64, k <= most.
    """
    above = (scores > threshold).nonzero().squeeze(1)
    order = scores[above].sort(descending=True).indices
    return above[order[:most]]


@torch.library.custom_op(f'{LIBRARY}::nms', mutates_args=())
def nms(boxes: Tensor, scores: Tensor, groups: Tensor, iou_threshold: float, most: int) -> Tensor:
    """Indices of the boxes that stay, the highest score first.

    Boxes of different groups do not suppress each other.

    Shape:
        boxes (n, 4); scores (n,); groups (n,), int64; returns (k,), int64,
        k <= most.
    """
    if not len(boxes):
        return groups.clone()
    cfg = dict(type='nms', iou_threshold=iou_threshold)
    return batched_nms(boxes, scores, groups, cfg)[1][:most].clone()


@torch.library.custom_op(f'{LIBRARY}::pooled_regions', mutates_args=())
def pooled_regions(
    maps: list[Tensor],
    boxes: Tensor,
    levels: Tensor,
    scales: list[float],
    size: list[int],
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """RoIAlign of each box on the map of its level.

    Args:
        scales: of the maps, in pixels of theirs per pixel of the image.

    Shape:
        maps (1, C, H, W) each; boxes (n, 4); levels (n,), int64;
        returns (n, C, *size).
    """
    regions = torch.cat([boxes.new_zeros(len(boxes), 1), boxes], dim=1)
    result = boxes.new_zeros(len(boxes), maps[0].shape[1], *size)
    for level, (x, scale) in enumerate(zip(maps, scales)):
        chosen = levels == level
        result[chosen] = ops.roi_align(
            x, regions[chosen], tuple(size), scale, sampling_ratio, 'avg', aligned
        )
    return result


@best.register_fake
@nms.register_fake
def _(x: Tensor, *rest: Any) -> Tensor:
    return x.new_empty(torch.library.get_ctx().new_dynamic_size(), dtype=torch.int64)


@pooled_regions.register_fake
def _(
    maps: list[Tensor],
    boxes: Tensor,
    levels: Tensor,
    scales: list[float],
    size: list[int],
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    return boxes.new_empty(boxes.shape[0], maps[0].shape[1], *size)


def translations() -> dict[Any, Any]:
    """By operator, the ONNX function of the same; needs onnxscript."""
    from onnxscript import opset18

    # Its annotations are for compiled scripts; here every value is symbolic.
    op: Any = opset18
    zero = [0]

    def onnx_best(scores: Any, threshold: float, most: int) -> Any:
        above = op.Squeeze(op.NonZero(op.Greater(scores, threshold)), zero)
        count = op.Min(op.Constant(value_ints=[most]), op.Shape(above))
        _, order = op.TopK(op.Gather(scores, above), count)
        return op.Gather(above, order)

    def onnx_nms(boxes: Any, scores: Any, groups: Any, iou_threshold: float, most: int) -> Any:
        # Groups lie side by side, apart by more than the widest box. The 0 is
        # for the highest of no boxes at all.
        corners = op.Concat(op.Reshape(boxes, [-1]), op.Constant(value_floats=[0.0]), axis=0)
        pitch = op.Add(op.ReduceMax(corners, keepdims=0), 1.0)
        offsets = op.Unsqueeze(op.Mul(op.CastLike(groups, pitch), pitch), [1])
        kept = op.NonMaxSuppression(
            op.Unsqueeze(op.Add(boxes, offsets), zero),
            op.Unsqueeze(scores, [0, 1]),
            op.Constant(value_ints=[most]),
            op.Constant(value_floats=[iou_threshold]),
        )
        return op.Gather(kept, op.Constant(value_int=2), axis=1)

    def onnx_pooled_regions(
        maps: Any,
        boxes: Any,
        levels: Any,
        scales: list[float],
        size: list[int],
        sampling_ratio: int,
        aligned: bool,
    ) -> Any:
        parts, places = [], []
        for level, (x, scale) in enumerate(zip(maps, scales)):
            place = op.Squeeze(op.NonZero(op.Equal(levels, op.Constant(value_int=level))), zero)
            chosen = op.Gather(boxes, place)
            first_image = op.Mul(place, op.Constant(value_int=0))
            parts.append(
                op.RoiAlign(
                    x,
                    chosen,
                    first_image,
                    coordinate_transformation_mode=(
                        'half_pixel' if aligned else 'output_half_pixel'
                    ),
                    output_height=size[0],
                    output_width=size[1],
                    sampling_ratio=sampling_ratio,
                    spatial_scale=scale,
                )
            )
            places.append(place)
        order = op.Concat(*places, axis=0)
        _, back = op.TopK(order, op.Shape(order), largest=0)
        return op.Gather(op.Concat(*parts, axis=0), back)

    own = getattr(torch.ops, LIBRARY)
    return {
        own.best.default: onnx_best,
        own.nms.default: onnx_nms,
        own.pooled_regions.default: onnx_pooled_regions,
    }
