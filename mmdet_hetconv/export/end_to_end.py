"""One ONNX file from an image to boxes, scores and labels.

Three graphs in a row: the image is resized, normalised and padded as a
config's test pipeline does it; onnx.py's graph; decoding.py's.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..utils.image_channels import image_channels
from .decoding import Decoding
from .graph_ops import translations
from .graph_script import FLAGS
from .onnx import RawOutputs, by_kind, public_operators

OUTPUTS = ['boxes', 'scores', 'labels']
# Of an image's side, in pixels: more overflow in OpenVINO's 32 bits.
LONGEST = 2**14
# Steps of a test pipeline that do nothing to the image.
NEUTRAL = {'LoadAnnotations', 'PackDetInputs'}
# The largest level of the maps that the decoding is traced with, and how much
# each is larger than the next: no side may be 1, which would become a constant.
LEVEL, STEP = 3, 2


@dataclass(frozen=True)
class Preparation:
    """What is done to an image before the network.

    Attributes:
        scale: width and height to resize to, or the longest and the shortest
            side if `keep_ratio`.
        channels: of the image.
        mean, std: by channel of what the network takes.
        swap: the order of the channels is reversed (BGR to RGB).
        divisor: sides are padded to a multiple of it, at the right and below.
        pad_value: of the padding, after normalisation.
        color_type: how mmcv, or a cv2.imread that is like it, reads the image.
    """

    scale: tuple[int, int]
    keep_ratio: bool
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    swap: bool
    divisor: int
    pad_value: float
    color_type: str

    def as_text(self) -> str:
        """The graph, as onnx.parser reads it: see its inputs and outputs.

        Shape:
            image (H, W, C), uint8; images (1, C, h, w); shape (2,): height
            and width without padding; scale (4,): x, y, x, y.
        """
        if self.keep_ratio:
            # (2 * side * limit + of) / (2 * of) rounds side * limit / of. In whole numbers:
            # OpenVINO 2026.4 turns a float quotient of a constant over the sides upside down.
            target = ''.join(
                f"""
                limit_{kind} = Constant <value_int = {2 * limit}> ()
                of_{kind} = Reduce{kind} <keepdims = 0> (size)
                twice_{kind} = Add (of_{kind}, of_{kind})
                product_{kind} = Mul (size, limit_{kind})
                sum_{kind} = Add (product_{kind}, of_{kind})
                by_{kind} = Div (sum_{kind}, twice_{kind})"""
                for kind, limit in (('Max', max(self.scale)), ('Min', min(self.scale)))
            )
            target += """
                target = Min (by_Max, by_Min)"""
        else:
            width, height = self.scale
            target = f'target = Constant <value_ints = [{height}, {width}]> ()'
        order = list(range(self.channels))[:: -1 if self.swap else 1]
        return f"""
            prepare (uint8[height, width, {self.channels}] image)
                => (float[1, {self.channels}, h, w] images, float[2] shape, float[4] scale)
            {{
                size = Shape <start = 0, end = 2> (image)
                {target}
                first = Constant <value_ints = [1, {self.channels}]> ()
                sizes = Concat <axis = 0> (first, target)
                zero = Constant <value_ints = [0]> ()
                planes = Transpose <perm = [2, 0, 1]> (image)
                one_image = Unsqueeze (planes, zero)
                pixels = Cast <to = 1> (one_image)
                resized = Resize <mode = "linear",
                    coordinate_transformation_mode = "half_pixel"> (pixels, , , sizes)
                levels = Round (resized)
                order = Constant <value_ints = {order}> ()
                ordered = Gather <axis = 1> (levels, order)
                flat_mean = Constant <value_floats = {list(self.mean)}> ()
                flat_std = Constant <value_floats = {list(self.std)}> ()
                behind = Constant <value_ints = [1, 2]> ()
                mean = Unsqueeze (flat_mean, behind)
                std = Unsqueeze (flat_std, behind)
                centred = Sub (ordered, mean)
                normalised = Div (centred, std)
                divisor = Constant <value_int = {self.divisor}> ()
                one = Constant <value_int = 1> ()
                above = Add (target, divisor)
                last = Sub (above, one)
                times = Div (last, divisor)
                padded = Mul (times, divisor)
                missing = Sub (padded, target)
                nothing = Constant <value_ints = [0, 0, 0, 0, 0, 0]> ()
                pads = Concat <axis = 0> (nothing, missing)
                pad_value = Constant <value_float = {float(self.pad_value)}> ()
                images = Pad (normalised, pads, pad_value)
                shape = Cast <to = 1> (target)
                original = Cast <to = 1> (size)
                ratio = Div (shape, original)
                twice = Constant <value_ints = [1, 0, 1, 0]> ()
                scale = Gather (ratio, twice)
            }}"""


def preparation(pipeline: Iterable[dict[str, Any]], detector: nn.Module) -> Preparation:
    """What a test pipeline and a detector's data preprocessor do.

    Raises:
        ValueError: the pipeline has a step that the graph does not have.
    """
    resize, color_type = None, 'color'
    for step in pipeline:
        kind = step['type'] if isinstance(step['type'], str) else step['type'].__name__
        kind = kind.rpartition('.')[2]
        if kind == 'LoadImageFromFile':
            color_type = step.get('color_type', 'color')
            backend, floats = step.get('imdecode_backend', 'cv2'), step.get('to_float32', False)
            if backend != 'cv2' or floats or color_type not in FLAGS:
                raise ValueError(f'its images are not read as cv2.imread does: {dict(step)}')
        elif kind == 'Resize' and resize is None and 'scale' in step:
            resize = step
        elif kind not in NEUTRAL:
            raise ValueError(f'its test pipeline has {kind}, which the graph has not')
    if resize is None:
        raise ValueError('its test pipeline has no Resize with one scale')
    scale = _scale(resize)
    found: Any = detector.data_preprocessor
    channels = image_channels(detector)
    zeros, ones = torch.zeros(channels), torch.ones(channels)
    mean = found.mean.flatten() if found._enable_normalize else zeros
    std = found.std.flatten() if found._enable_normalize else ones
    return Preparation(
        scale=scale,
        keep_ratio=bool(resize.get('keep_ratio', False)),
        channels=channels,
        mean=tuple(mean.expand(channels).float().tolist()),
        std=tuple(std.expand(channels).float().tolist()),
        swap=found._channel_conversion,
        divisor=found.pad_size_divisor,
        pad_value=found.pad_value,
        color_type=color_type,
    )


def _scale(resize: dict[str, Any]) -> tuple[int, int]:
    """Width and height that a Resize names."""
    for key, usual in (('interpolation', 'bilinear'), ('backend', 'cv2')):
        if resize.get(key, usual) != usual:
            raise ValueError(f'its Resize has {key}={resize[key]!r}, a graph has {usual!r} only')
    scale = resize['scale']
    sides = (scale, scale) if isinstance(scale, int) else tuple(scale)
    if len(sides) != 2 or not all(isinstance(n, int) and 0 < n <= LONGEST for n in sides):
        raise ValueError(f'its Resize has {scale=}, not two whole numbers up to {LONGEST}')
    return sides


def _like(levels: Sequence[Tensor]) -> list[Tensor]:
    """Random values of as many channels, of sizes of our own."""
    sides = [LEVEL + STEP * (len(levels) - number) for number in range(len(levels))]
    return [torch.randn(1, x.shape[1], side, side + 1) for x, side in zip(levels, sides)]


@torch.no_grad()
def export_decoding(detector: nn.Module, size: tuple[int, int], path: str | Path) -> None:
    """Write the graph from raw outputs, shape and scale to OUTPUTS.

    Args:
        detector: of mmdet, in inference mode, on the CPU.
        size: height and width of an image that it can take.

    Raises:
        ValueError: see :class:`Decoding`.
    """
    model = Decoding(detector).eval()
    raw = RawOutputs(detector).eval()
    images = torch.randn(1, image_channels(detector), *size)
    outputs = raw(images)  # which names them
    features, maps = by_kind(raw.names, outputs)
    features, maps = _like(features), [_like(levels) for levels in maps]
    inputs = (features, maps, torch.tensor([200.0, 300.0]), torch.tensor([2.0, 1.5, 2.0, 1.5]))
    dynamic = {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    shapes = [dynamic for _ in features], [[dynamic for _ in x] for x in maps], None, None
    with public_operators(model):
        model(*inputs)
        torch.onnx.export(
            model,
            inputs,
            str(path),
            input_names=[*raw.names, 'shape', 'scale'],
            output_names=OUTPUTS,
            dynamic_shapes=shapes,
            custom_translation_table=translations(),
            dynamo=True,
            external_data=False,
            verbose=False,
        )


def save_preparation(prepare: Preparation, like: str | Path, path: str | Path) -> None:
    """Write the graph from an image to the network's input.

    Args:
        like: a graph of export_onnx(), of whose operator set it is to be.
    """
    import onnx

    body = onnx.load(like)
    opset = next(entry for entry in body.opset_import if entry.domain == '')
    graph = onnx.parser.parse_graph(prepare.as_text())
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=body.ir_version)
    onnx.save(model, str(path))


def join(
    preparation: str | Path,
    network: str | Path,
    decoding: str | Path,
    target: str | Path,
    classes: Sequence[str],
) -> None:
    """Write the file from an image to boxes.

    Args:
        preparation: of save_preparation().
        network: a graph of export_onnx(), in float32 or quantized.
        decoding: of export_decoding().
        target: the file to write. Its metadata has the classes' names.
    """
    import onnx
    from onnx.compose import add_prefix, merge_models

    first, body, last = map(onnx.load, (preparation, network, decoding))
    names = [output.name for output in body.graph.output]
    inner = dict(rename_inputs=False, rename_outputs=False)
    body = add_prefix(body, 'network/', **inner)
    last = add_prefix(last, 'decoding/', **inner)
    model = merge_models(first, body, [('images', 'images')], outputs=['shape', 'scale', *names])
    passed = [(name, name) for name in ('shape', 'scale', *names)]
    model = merge_models(model, last, passed, outputs=OUTPUTS)
    # The graphs call different sizes by the same names.
    del model.graph.value_info[:]
    onnx.helper.set_model_props(model, {'classes': json.dumps(list(classes))})
    onnx.checker.check_model(model)
    onnx.save(model, str(target))


def read_classes(path: str | Path) -> list[str]:
    """The classes' names in a file of :func:`join`.

    Raises:
        ValueError: it is none.
    """
    import onnx

    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # of protobuf, which has its own kinds
        raise ValueError('it is no ONNX file') from error
    names = [output.name for output in model.graph.output]
    found = {entry.key: entry.value for entry in model.metadata_props}
    if names != OUTPUTS or 'classes' not in found:
        raise ValueError(f'it is none of export_onnx.py --end2end: its outputs are {names}')
    return json.loads(found['classes'])
