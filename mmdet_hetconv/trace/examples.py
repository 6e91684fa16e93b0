"""Inputs on which a network is watched."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .tensors import map_tensors

# A forward pass of a network that it is given.
Run = partial[Any]
# Height and width of images that are tried; the first that runs is taken, and one more.
SIZES = ((64, 96), (96, 64), (224, 224), (299, 299), (300, 300), (32, 32), (28, 28), (512, 512))
WANTED = 2
# Of a detector's regions, so many are watched.
REGIONS = 16


def is_detector(model: nn.Module) -> bool:
    """Whether it is a detector of mmdet."""
    from mmdet.models.detectors import BaseDetector

    return isinstance(model, BaseDetector)


def example_runs(model: nn.Module, example: Any = None) -> list[Run]:
    """Forward passes of a network in eval mode that end without an error.

    Args:
        model: takes images, or is a detector of mmdet.
        example: what it takes, for one pass; a tuple for several arguments, a dict for
            keywords. By default random images of its first convolution's channels, in
            two sizes where it takes them.

    Returns:
        list: empty where no example is given and random images raise.

    Raises:
        ValueError: the model does not run on the example that was given.
    """
    if example is not None:
        runs = [
            partial(call_with, example=example),
            partial(call_with, example=noise_like(example)),
        ]
        try:
            runs[0](model)
        except Exception as error:
            raise ValueError(
                f'the model does not run on the example: {type(error).__name__}: {error}'
            ) from error
        return [runs[0], *(run for run in runs[1:] if _ends(run, model))]
    found: list[Run] = []
    # mmdet 3.3's own SSD puts out predictions and cannot decode them.
    for look in (detect, forward_tensors):
        ending = (run for run in image_runs(model, look) if _ends(run, model))
        found = found or list(itertools.islice(ending, WANTED))
    if not (found and is_detector(model)):
        return found
    # A mask head is not called where there is no box to begin with.
    heads = partial(found[-1], run=forward_tensors)
    return [*found, heads] if _ends(heads, model) else found


def image_runs(model: nn.Module, look: Callable[..., Any]) -> Iterator[Run]:
    """Forward passes to try, on random images.

    Args:
        look: how a detector of mmdet is run.
    """
    detects = is_detector(model)
    first = _image_channels(model)
    # The first convolution may be one that torch does not see, in a plain list.
    kinds = itertools.product(dict.fromkeys((first, 3)) if first else (), SIZES)
    generator = torch.Generator().manual_seed(0)
    for channels, size in kinds:
        images = torch.randn(1 if detects else 2, channels, *size, generator=generator)
        images = images.to(_device_of(model))
        watched = partial(few_regions, run=look, images=images)
        yield watched if detects else partial(call_with, example=images)


@torch.no_grad()
def call_with(model: nn.Module, example: Any) -> Any:
    """The model on an example; on a copy, which it may change."""
    example = map_tensors(Tensor.clone, example)
    if isinstance(example, tuple):
        return model(*example)
    if isinstance(example, dict):
        return model(**example)
    return model(example)


def noise_like(example: Any) -> Any:
    """The same with normal noise of each floating-point tensor's mean and deviation.

    Images in bytes get random bytes; other whole numbers stay, as they may be indices.
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


def _ends(run: Run, model: nn.Module) -> bool:
    try:
        run(model)
    except Exception:  # whatever a network says of an input that is not its own
        return False
    return True


def _image_channels(model: nn.Module) -> int | None:
    """Channels of the first convolution, in the order in which modules were made."""
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
    """Run a detector of mmdet whose heads see few of an image's regions."""
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
    """Boxes in images that are as large as a detector's input.

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
    """Raise ValueError if a detector of mmdet reads more than an image."""
    if hasattr(model, 'language_model'):
        raise ValueError(f'{type(model).__name__} reads a text beside the image')


@torch.no_grad()
def forward_tensors(model: nn.Module, images: Tensor) -> Any:
    """What the heads of a detector of mmdet put out, all of them."""
    return model(images, samples_for(images), mode='tensor')


def samples_for(images: Tensor) -> list[Any]:
    """mmdet's data samples of images that are as large as the network's input."""
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
