"""Example inputs on which a network is recorded."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .kinds import OPERATIONS
from .modules import outer_modules
from .record import record
from .recording import Recording
from .tensors import find_tensors, map_tensors

# One forward pass: takes the network.
Run = partial[Any]
# Height and width of random images that are tried.
SIZES = (
    *((64, 96), (85, 59), (96, 64), (224, 224), (299, 299), (300, 300)),
    *((32, 32), (28, 28), (512, 512)),
)
# Number of regions for which a detector's heads run.
REGIONS = 16


def is_detector(model: nn.Module) -> bool:
    """Whether it is a detector of mmdet."""
    from mmdet.models.detectors import BaseDetector

    return isinstance(model, BaseDetector)


def record_examples(model: nn.Module, example: Any = None) -> list[tuple[Run, Recording]]:
    """Forward passes that the network completes, and their recordings.

    They differ in the number and the size of images where the network allows it.

    Args:
        model: in eval mode; takes images, or is a detector of mmdet.
        example: its input, for one pass; a tuple for several arguments, a dict for
            keywords. By default random images of its first convolution's channels.

    Returns:
        list: empty if no example is given and the network takes no random images.

    Raises:
        ValueError: the model does not run on the example that was given.
    """
    if example is not None:
        run = partial(call_with, example=example)
        try:
            found = [(run, record(model, partial(run, model)))]
        except Exception as error:
            raise ValueError(
                f'the model does not run on the example: {type(error).__name__}: {error}'
            ) from error
        noise = noise_like(example)
        for other in (noise, first_part(noise)):
            found += _first_that_ends(model, [partial(call_with, example=other)])
        return found
    # mmdet 3.3's own SSD puts out predictions and cannot decode them.
    for look in (detect, forward_tensors):
        found = _first_that_ends(model, image_runs(model, look))
        if found:
            break
    else:
        return []
    found += _first_that_ends(model, image_runs(model, look, unlike=found[0][0]))
    known = {module for _, seen in found for module in seen.called()}
    convs = {m for m in outer_modules(model) if isinstance(m, (nn.Conv2d, *OPERATIONS))}
    if is_detector(model) and look is detect and not convs <= known:
        # Mask heads are not called on images without boxes.
        heads = partial(found[-1][0], run=forward_tensors)
        found += _first_that_ends(model, [heads])
    return found


def _first_that_ends(model: nn.Module, runs: Iterable[Run]) -> list[tuple[Run, Recording]]:
    for run in runs:
        try:
            return [(run, record(model, partial(run, model)))]
        except Exception:  # the network does not take this input
            continue
    return []


def image_runs(
    model: nn.Module, look: Callable[..., Any], unlike: Run | None = None
) -> Iterator[Run]:
    """Forward passes on random images, to be tried in order.

    Args:
        look: how to run a detector of mmdet.
        unlike: a run from which they differ in the number of images or in their size.
    """
    first = _image_channels(model)
    if first is None:
        return
    detects = is_detector(model)
    generator = torch.Generator().manual_seed(0)
    counts = (1,) if detects or unlike is not None else (2, 1)
    # The real first convolution may be hidden in a plain list: try 3 channels, too.
    for count, channels, size in itertools.product(counts, dict.fromkeys((first, 3)), SIZES):
        images = torch.randn(count, channels, *size, generator=generator).to(_device_of(model))
        if unlike is not None and _images(unlike).shape[-2:] == size:
            continue
        watched = partial(few_regions, run=look, images=images)
        yield watched if detects else partial(call_with, example=images)
    if unlike is not None and len(_images(unlike)) > 1:
        yield partial(call_with, example=_images(unlike)[:1])


def _images(run: Run) -> Tensor:
    return run.keywords['images' if 'images' in run.keywords else 'example']


@torch.no_grad()
def call_with(model: nn.Module, example: Any) -> Any:
    """Run the model on a copy of an example, since it may change its input in place."""
    example = map_tensors(Tensor.clone, example)
    if isinstance(example, tuple):
        return model(*example)
    if isinstance(example, dict):
        return model(**example)
    return model(example)


def noise_like(example: Any) -> Any:
    """Replace floating-point tensors by normal noise of the same mean and deviation.

    uint8 images become random bytes; other integers stay, as they may be indices.
    """
    generator = torch.Generator().manual_seed(0)

    def noise(tensor: Tensor) -> Tensor:
        if tensor.dtype == torch.uint8:
            values = torch.randint(256, tensor.shape, generator=generator, dtype=torch.uint8)
            return values.to(tensor.device)
        if not tensor.is_floating_point() or not tensor.numel():
            return tensor
        values = tensor.float()
        spread = values.std() if tensor.numel() > 1 and values.std() > 0 else torch.tensor(1.0)
        drawn = torch.randn(tensor.shape, generator=generator).to(tensor.device)
        return (drawn * spread + values.mean()).to(tensor.dtype)

    return map_tensors(noise, example)


def first_part(example: Any) -> Any:
    """Cut out of the first image a corner with an odd number of rows and columns."""
    images = [tensor for tensor in find_tensors(example) if tensor.dim() == 4]
    count = len(images[0]) if images else 0

    def cut(tensor: Tensor) -> Tensor:
        if count and tensor.dim() and len(tensor) == count:
            tensor = tensor[:1]
        if tensor.dim() == 4:
            height, width = (min(side * 3 // 4, 128) | 1 for side in tensor.shape[2:])
            tensor = tensor[:, :, :height, :width]
        return tensor

    return map_tensors(cut, example)


def _image_channels(model: nn.Module) -> int | None:
    """Input channels of the first convolution in ``model.modules()``."""
    for module in model.modules():
        channels = getattr(module, 'in_channels', None)
        kernel = getattr(module, 'kernel_size', None)
        if isinstance(channels, int) and isinstance(kernel, Sequence) and len(kernel) == 2:
            return channels
    return None


def _device_of(model: nn.Module) -> torch.device:
    weight = next(itertools.chain(model.parameters(), model.buffers()), None)
    return torch.device('cpu') if weight is None else weight.device


def few_regions(model: nn.Module, run: Callable[..., Any], images: Tensor) -> Any:
    """Run a detector of mmdet with at most REGIONS regions an image."""
    limits = [
        cfg
        for module in model.modules()
        if isinstance(cfg := getattr(module, 'test_cfg', None), dict) and 'max_per_img' in cfg
    ]
    before = [cfg['max_per_img'] for cfg in limits]
    try:
        for cfg in limits:
            cfg['max_per_img'] = min(cfg['max_per_img'], REGIONS)
        return run(model, images)
    finally:
        for cfg, limit in zip(limits, before):
            cfg['max_per_img'] = limit


@torch.no_grad()
def detect(model: nn.Module, images: Tensor) -> Any:
    """Detect in images that are already of the network's input size.

    Args:
        model: a detector of mmdet, in inference mode.

    Shape:
        images: (B, C, H, W), normalised.

    Raises:
        ValueError: see :func:`check_reads_images`.
    """
    check_reads_images(model)
    detector: Any = model
    return detector.predict(images, samples_for(images))


def check_reads_images(model: nn.Module) -> None:
    """Raise ValueError if a detector of mmdet needs more than an image."""
    if hasattr(model, 'language_model'):
        raise ValueError(f'{type(model).__name__} reads a text beside the image')


@torch.no_grad()
def forward_tensors(model: nn.Module, images: Tensor) -> Any:
    """Raw outputs of all heads of a detector of mmdet."""
    return model(images, samples_for(images), mode='tensor')


def samples_for(images: Tensor) -> list[Any]:
    """mmdet's data samples for images that are already of the network's input size."""
    from mmdet.structures import DetDataSample

    size = tuple(images.shape[2:])
    metainfo = dict(
        img_shape=size,
        ori_shape=size,
        batch_input_shape=size,
        pad_shape=size,
        scale_factor=(1.0, 1.0),
        border=(0, size[0], 0, size[1]),  # none; CornerNet and CenterNet take it off
    )
    return [DetDataSample(metainfo=dict(metainfo)) for _ in images]
