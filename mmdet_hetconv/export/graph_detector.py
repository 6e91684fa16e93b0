"""A detector whose backbone, neck and dense head a graph computes.

Decoding, NMS and a RoI head stay the detector's own.
"""

from collections.abc import Sequence
from typing import Any

import mmcv
import torch
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.models.detectors import SingleStageDetector, TwoStageDetector
from mmdet.structures import DetDataSample
from mmengine.structures import BaseDataElement, InstanceData
from torch import Tensor, nn

from ..models.anatomy import dense_head
from .onnx import by_kind
from .runtimes import Graph


class GraphMaps(tuple[Tensor, ...]):
    """The neck's maps of a two-stage detector, nothing of others.

    Attributes:
        head (list[list[Tensor]]): raw outputs of the dense head, by output
            and level.
    """

    head: list[list[Tensor]]


class GraphBackbone(nn.Module):
    """Images (B, C, H, W) to the :class:`GraphMaps` of a graph."""

    def __init__(self, graph: Graph):
        super().__init__()
        self.graph = graph

    def forward(self, images: Tensor) -> GraphMaps:
        outputs = self.graph.run(images.cpu().contiguous().numpy())
        # OpenVINO writes the next outputs into the same memory.
        values = [torch.from_numpy(output.copy()) for output in outputs]
        features, head = by_kind(self.graph.names, values)
        maps = GraphMaps(features)
        maps.head = head
        return maps


class GraphHead(nn.Module):
    """The decoding of a dense head, behind a :class:`GraphBackbone`.

    Args:
        head (BaseDenseHead): the detector's; its convolutions are not used.
    """

    def __init__(self, head: BaseDenseHead):
        super().__init__()
        self.head = head

    def predict(
        self, x: GraphMaps, batch_data_samples: Sequence[BaseDataElement], rescale: bool = False
    ) -> list[InstanceData]:
        """As BaseDenseHead.predict, from raw outputs."""
        return self.head.predict_by_feat(
            *x.head,
            batch_img_metas=[sample.metainfo for sample in batch_data_samples],
            rescale=rescale,
        )


def check_graph_detector(detector: nn.Module) -> str:
    """The name of the head that a graph replaces.

    Raises:
        ValueError: the detector has other parts than a graph replaces.
    """
    one_stage = isinstance(detector, SingleStageDetector) and hasattr(detector, 'bbox_head')
    two_stage = isinstance(detector, TwoStageDetector) and hasattr(detector, 'rpn_head')
    if not (one_stage or two_stage):
        raise ValueError(
            f'{type(detector).__name__} is neither a single-stage detector of '
            'boxes nor one with RPN and RoI head'
        )
    return dense_head(detector)[0]


def run_by_graph(detector: nn.Module, graph: Graph) -> None:
    """Put a graph of export_onnx() in place of a detector's own layers.

    Args:
        detector (nn.Module): changed in place.

    Raises:
        ValueError: see :func:`check_graph_detector`.
    """
    name = check_graph_detector(detector)
    detector.backbone = GraphBackbone(graph)
    if detector.with_neck:
        detector.neck = nn.Identity()
    setattr(detector, name, GraphHead(detector.get_submodule(name)))


class EndToEndDetector(nn.Module):
    """What evaluates an end-to-end graph: it gets image files as they are.

    Args:
        graph: of end_to_end.py.
        color_type: how mmcv reads the files.
    """

    def __init__(self, graph: Graph, color_type: str):
        super().__init__()
        self.graph = graph
        self.color_type = color_type

    def test_step(self, data: dict[str, Any]) -> list[DetDataSample]:
        """The detections of a batch, in pixels of the files."""
        samples = data['data_samples']
        for sample in samples:
            image = mmcv.imread(sample.img_path, flag=self.color_type)
            image = image.reshape(*image.shape[:2], -1)
            boxes, scores, labels = (
                torch.from_numpy(output.copy()) for output in self.graph.run(image)
            )
            sample.pred_instances = InstanceData(bboxes=boxes, scores=scores, labels=labels)
        return samples
