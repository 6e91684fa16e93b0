"""Backbone, neck and dense head of a detector as an ONNX graph.

What comes out are the head's raw outputs, named head.OUTPUT.LEVEL, and for a
two-stage detector the neck's maps too, named feature.LEVEL. Decoding and NMS
stay in Python, see graph_detector.py.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from ..kernels import Plan, planned_convs
from ..models.anatomy import dense_head
from ..utils.image_channels import image_channels
from .runtimes import open_session


class RawOutputs(nn.Module):
    """Images to the raw outputs, in one tuple.

    Args:
        detector (nn.Module): of mmdet, with a bbox_head or a rpn_head.

    Attributes:
        names (list[str]): of the outputs; after the first call.

    Shape:
        images (B, C, H, W).

    Raises:
        ValueError: see :func:`heads.dense_head`; the head puts out more than
            maps by level.
    """

    def __init__(self, detector: nn.Module):
        super().__init__()
        name, self.head = dense_head(detector)
        self.two_stage = name == 'rpn_head'
        self.backbone = detector.get_submodule('backbone')
        self.neck = detector.get_submodule('neck') if detector.with_neck else nn.Identity()
        self.names: list[str] = []

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        features = self.neck(self.backbone(images))
        outputs = self.head(features)
        for levels in outputs:
            if not isinstance(levels, list | tuple) or len(levels) != len(outputs[0]):
                raise ValueError(
                    f'{type(self.head).__name__} puts out more than one map per level, '
                    'which a graph has no names for'
                )
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
        ValueError: see :class:`RawOutputs`.
    """
    model = RawOutputs(detector).eval()
    # Not one image: a batch of one would be taken for a constant.
    images = torch.randn(2, image_channels(detector), *size)
    with public_operators(model), torch.no_grad():
        model(images)
        _export(model, images, path)
    return model.names


def by_kind(
    names: Sequence[str], values: Sequence[Tensor]
) -> tuple[list[Tensor], list[list[Tensor]]]:
    """What belongs to the names of :class:`RawOutputs`.

    Returns:
        The neck's maps by level, and the head's outputs by output and level.
    """
    features: list[Tensor] = []
    head: list[list[Tensor]] = []
    for name, value in zip(names, values, strict=True):
        kind, *numbers = name.split('.')
        if kind == 'feature':
            features.append(value)
            continue
        if int(numbers[0]) == len(head):
            head.append([])
        head[-1].append(value)
    return features, head


@contextmanager
def public_operators(model: nn.Module) -> Iterator[None]:
    """Within the block, deployed layers compute in operators that a graph has.

    Their weights are prepared by the first call, so that they are constants
    of a graph that is exported after it.
    """
    public = Plan(frozen=True, only=['two_branch_nchw', 'dense_nchw'])
    convs = planned_convs(model)
    plans = [conv.plan for conv in convs]
    try:
        for conv in convs:
            conv.plan = public
        yield
    finally:
        for conv, plan in zip(convs, plans):
            conv.plan = plan


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
