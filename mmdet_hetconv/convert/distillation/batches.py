"""Training batches without labels, drawn from calibration batches.

Images are cropped, shifted and mirrored at random, all of a batch to one size.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# A batch has at most so many images and pixels; larger images are cropped.
IMAGES = 64
PIXELS = 2**18
SIDE = 512
# Images are shifted by up to this share of their size.
SHIFT = 1 / 8


class Draws:
    """Batches like the given ones, of images that are drawn at random.

    Args:
        batches: tensors (B, C, H, W), or what mmdet's detectors take: dicts
            with lists ``inputs`` of images (C, H, W) and ``data_samples``.
        generator: of all that is random.

    Raises:
        ValueError: a batch is something else.
    """

    def __init__(self, batches: Sequence[Any], generator: torch.Generator):
        self.batches = batches
        self.generator = generator
        height, width = _size(_images(batches[0])[0])
        self.count = max(1, min(IMAGES, PIXELS // (height * width)))

    def draw(self) -> Any:
        """One batch."""
        chosen = [self._choose() for _ in range(self.count)]
        images = [_images(batch)[number] for batch, number in chosen]
        common = [min(_size(image)[axis] for image in images) for axis in (0, 1)]
        images = [self._shifted(image, common) for image in images]
        return _like(chosen, images)

    def _random(self, high: int) -> int:
        return int(torch.randint(high, (), generator=self.generator))

    def _choose(self) -> tuple[Any, int]:
        batch = self.batches[self._random(len(self.batches))]
        return batch, self._random(len(_images(batch)))

    def _shifted(self, image: Tensor, size: Sequence[int]) -> Tensor:
        """A window of an image, black beyond its edges, mirrored or not."""
        edges = [int(SHIFT * n) for n in size]
        image = F.pad(image, (edges[1], edges[1], edges[0], edges[0]))
        top, left = (self._random(n - m + 1) for n, m in zip(image.shape[-2:], size))
        image = image[..., top : top + size[0], left : left + size[1]]
        return image.flip(-1) if self._random(2) else image


def _size(image: Tensor) -> tuple[int, int]:
    return min(SIDE, image.shape[-2]), min(SIDE, image.shape[-1])


def _images(batch: Any) -> Sequence[Tensor] | Tensor:
    """The images of a batch, (C, H, W) each."""
    images = batch.get('inputs') if isinstance(batch, dict) else batch
    if isinstance(images, (Tensor, list, tuple)) and len(images):
        return images
    raise ValueError(f'distillation cannot take images from a {type(batch).__name__}')


def _like(chosen: Sequence[tuple[Any, int]], images: list[Tensor]) -> Any:
    """A batch of these images, in the form of those that they came from."""
    first = chosen[0][0]
    if isinstance(first, Tensor):
        batch = torch.stack(images)
        last = first.is_contiguous(memory_format=torch.channels_last)
        return batch.contiguous(memory_format=torch.channels_last) if last else batch
    samples = []
    for (batch, number), image in zip(chosen, images):
        sample = copy.copy(batch['data_samples'][number])
        shape = tuple(image.shape[-2:])
        sample.set_metainfo(dict(img_shape=shape, pad_shape=shape, batch_input_shape=shape))
        samples.append(sample)
    return dict(inputs=images, data_samples=samples)
