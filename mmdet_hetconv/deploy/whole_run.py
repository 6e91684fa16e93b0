"""A detector's whole run on tensors: backbone, heads and boxes."""

from typing import Any

import torch
from mmengine.structures import BaseDataElement
from torch import Tensor, nn


@torch.no_grad()
def detect(model: nn.Module, images: Tensor) -> list[BaseDataElement]:
    """Boxes in images that are as large as the network's input.

    Args:
        model: a detector of mmdet, in inference mode.

    Shape:
        images: (B, C, H, W), normalised.
    """
    from mmdet.structures import DetDataSample

    size = tuple(images.shape[2:])
    metainfo = dict(
        img_shape=size,
        ori_shape=size,
        batch_input_shape=size,
        pad_shape=size,
        scale_factor=(1.0, 1.0),
    )
    samples = [DetDataSample(metainfo=dict(metainfo)) for _ in images]
    detector: Any = model
    return detector.predict(images, samples)
