"""Backbone, neck and dense head of a detector as an ONNX graph.

What comes out are the head's raw outputs, named head.OUTPUT.LEVEL, and for a
two-stage detector the neck's maps too, named feature.LEVEL. Decoding and NMS
stay in Python: OnnxBackbone and OnnxHead put a graph back into its detector.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmengine.structures import BaseDataElement, InstanceData
from torch import Tensor, nn

from ..kernels import Plan, planned_convs
from ..utils.image_channels import image_channels

if TYPE_CHECKING:
    from onnxruntime import InferenceSession


class RawOutputs(nn.Module):
    """Images to the raw outputs, in one tuple.

    Args:
        detector (nn.Module): of mmdet, with a bbox_head or a rpn_head.

    Attributes:
        names (list[str]): of the outputs; after the first call.

    Shape:
        images (B, C, H, W).

    Raises:
        ValueError: the detector has no dense head.
    """

    def __init__(self, detector: nn.Module):
        super().__init__()
        self.two_stage = hasattr(detector, 'rpn_head')
        head = getattr(detector, 'rpn_head', None)
        head = head or getattr(detector, 'bbox_head', None)
        if head is None or not hasattr(head, 'predict_by_feat'):
            raise ValueError(
                f'{type(detector).__name__} has no dense head, only '
                'detectors with a rpn_head or a bbox_head can be exported'
            )
        self.backbone = detector.get_submodule('backbone')
        self.neck = detector.get_submodule('neck') if detector.with_neck else nn.Identity()
        self.head: BaseDenseHead = head
        self.names: list[str] = []

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        features = self.neck(self.backbone(images))
        outputs = self.head(features)
        named: dict[str, Tensor] = {}
        if self.two_stage:
            named.update((f'feature.{level}', x) for level, x in enumerate(features))
        named.update(
            (f'head.{number}.{level}', x)
            for number, levels in enumerate(outputs)
            for level, x in enumerate(levels)
        )
        self.names = list(named)
        return tuple(named.values())


def export_onnx(detector: nn.Module, size: tuple[int, int], path: str | Path) -> list[str]:
    """Write the graph; batch and image size stay dynamic.

    Args:
        detector (nn.Module): of mmdet, in inference mode, on the CPU.
        size (tuple[int, int]): height and width of the image to trace with.
        path (str | Path): the file to write.

    Returns:
        list[str]: the outputs' names.

    Raises:
        ValueError: the detector has no dense head.
    """
    model = RawOutputs(detector).eval()
    # Not one image: a batch of one would be taken for a constant.
    images = torch.randn(2, image_channels(detector), *size)
    # A graph takes public operators only. Their weights are prepared by the
    # first call, so that they are constants of the graph.
    public = Plan(frozen=True, only=['two_branch_nchw', 'dense_nchw'])
    convs = planned_convs(model)
    plans = [conv.plan for conv in convs]
    try:
        for conv in convs:
            conv.plan = public
        with torch.no_grad():
            model(images)
            _export(model, images, path)
    finally:
        for conv, plan in zip(convs, plans):
            conv.plan = plan
    return model.names


def _export(model: RawOutputs, images: Tensor, path: str | Path) -> None:
    dynamic = torch.export.Dim.DYNAMIC
    torch.onnx.export(
        model,
        (images,),
        str(path),
        input_names=['images'],
        output_names=model.names,
        dynamic_shapes=({0: dynamic, 2: dynamic, 3: dynamic},),
        dynamo=True,
        external_data=False,
        verbose=False,
    )


def open_session(path: str | Path) -> 'InferenceSession':
    """A session of onnxruntime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=['CPUExecutionProvider'])


@torch.no_grad()
def graph_error(detector: nn.Module, size: tuple[int, int], path: str | Path) -> float:
    """How far a graph's outputs in onnxruntime are from the detector's.

    Args:
        detector (nn.Module): what was exported, in inference mode.
        size (tuple[int, int]): height and width of the random image, best
            others than those of export_onnx().
        path (str | Path): the graph.

    Returns:
        float: the largest difference of any output, over the largest value
        of that output. NaN counts as infinite.
    """
    images = torch.randn(1, image_channels(detector), *size)
    wanted = RawOutputs(detector)(images)
    found = open_session(path).run(None, {'images': images.numpy()})
    errors = []
    for want, got in zip(wanted, found, strict=True):
        difference = (torch.from_numpy(got) - want).abs().max()
        errors.append((difference / want.abs().max().clamp(min=1e-12)).item())
    return max(math.inf if math.isnan(error) else error for error in errors)


class OnnxBackbone(nn.Module):
    """Images to the named outputs of a graph, by onnxruntime."""

    def __init__(self, path: str | Path):
        super().__init__()
        self.session = open_session(path)
        self.names = [output.name for output in self.session.get_outputs()]

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        outputs = self.session.run(None, {'images': images.cpu().numpy()})
        return {name: torch.from_numpy(value) for name, value in zip(self.names, outputs)}


class OnnxHead(nn.Module):
    """The decoding of a dense head, behind an :class:`OnnxBackbone`.

    Args:
        head (BaseDenseHead): the detector's; its convolutions are not used.
    """

    def __init__(self, head: BaseDenseHead):
        super().__init__()
        self.head = head

    def predict(
        self,
        x: dict[str, Tensor],
        batch_data_samples: Sequence[BaseDataElement],
        rescale: bool = False,
    ) -> list[InstanceData]:
        """As BaseDenseHead.predict, from raw outputs."""
        outputs: list[list[Tensor]] = []
        for name, value in x.items():
            _, number, _ = name.split('.')
            if int(number) == len(outputs):
                outputs.append([])
            outputs[-1].append(value)
        return self.head.predict_by_feat(
            *outputs,
            batch_img_metas=[sample.metainfo for sample in batch_data_samples],
            rescale=rescale,
        )


def check_single_stage(detector: nn.Module) -> None:
    """Raise ValueError for a detector whose head is not the end of it."""
    if hasattr(detector, 'rpn_head') or not hasattr(detector, 'bbox_head'):
        raise ValueError(f'{type(detector).__name__} is not a single-stage detector')


def run_by_onnxruntime(detector: nn.Module, path: str | Path) -> None:
    """Put a graph of export_onnx() in place of a detector's own layers.

    Args:
        detector (nn.Module): a single-stage detector, changed in place.

    Raises:
        ValueError: the detector has no bbox_head, or has a RoI head.
    """
    check_single_stage(detector)
    detector.backbone = OnnxBackbone(path)
    if detector.with_neck:
        detector.neck = nn.Identity()
    detector.bbox_head = OnnxHead(detector.get_submodule('bbox_head'))
