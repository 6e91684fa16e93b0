"""CIFAR-10 as tensors on one device, with its augmentation.

The whole data set is 180 MB of uint8: it lives on the device, and so do the
random crops and flips, so no worker process and no per-image Python.
"""

import io
import pickle
import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

SIZE = 32
PADDING = 4
MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2470, 0.2435, 0.2616)
OFFICIAL = {'train': [f'data_batch_{i}' for i in range(1, 6)], 'test': ['test_batch']}


class _ArrayUnpickler(pickle.Unpickler):
    """Loads the official batches, which hold numpy arrays and nothing else."""

    ALLOWED = {
        ('numpy.core.multiarray', '_reconstruct'),
        ('numpy._core.multiarray', '_reconstruct'),
        ('numpy', 'ndarray'),
        ('numpy', 'dtype'),
        ('_codecs', 'encode'),
    }

    def find_class(self, module, name):
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f'{module}.{name} has no place in a CIFAR-10 batch')
        return super().find_class(module, name)


def _read_official(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    images, labels = [], []
    for name in OFFICIAL[split]:
        with open(folder / name, 'rb') as file:
            batch = _ArrayUnpickler(file, encoding='bytes').load()
        images.append(batch[b'data'].reshape(-1, 3, SIZE, SIZE))
        labels.append(np.asarray(batch[b'labels']))
    return np.concatenate(images), np.concatenate(labels)


def _mosaic_files(folder: Path) -> dict[str, bytes]:
    """Contents of the mosaic and label files in a folder and its zips."""
    wanted = re.compile(r'(train|test)_(\d+\.(webp|png)|labels\.npy)')
    files = {
        path.name: path.read_bytes() for path in folder.iterdir() if wanted.fullmatch(path.name)
    }
    for path in sorted(folder.glob('*.zip')):
        with zipfile.ZipFile(path) as pack:
            for name in pack.namelist():
                if wanted.fullmatch(Path(name).name):
                    files[Path(name).name] = pack.read(name)
    return files


def _read_mosaics(files: dict[str, bytes], split: str) -> tuple[np.ndarray, np.ndarray]:
    names = sorted(name for name in files if re.match(rf'{split}_\d+\.', name))
    images = []
    for name in names:
        mosaic = np.asarray(Image.open(io.BytesIO(files[name])).convert('RGB'))
        rows, columns = mosaic.shape[0] // SIZE, mosaic.shape[1] // SIZE
        tiles = mosaic.reshape(rows, SIZE, columns, SIZE, 3)
        tiles = tiles.transpose(0, 2, 4, 1, 3).reshape(-1, 3, SIZE, SIZE)
        images.append(tiles)
    images = np.concatenate(images)
    labels = np.load(io.BytesIO(files[f'{split}_labels.npy']))
    if len(images) != len(labels):
        raise ValueError(
            f'CIFAR-10 {split}: {len(images)} images in {names} but {len(labels)} labels'
        )
    return images, labels


def load_split(folder: str | Path, split: str) -> tuple[Tensor, Tensor]:
    """All images and labels of the 'train' or 'test' split.

    Args:
        folder: holds the official python batches (also one level down, in
            cifar-10-batches-py), or mosaics ``<split>_NN.webp`` of 32 x 32
            tiles, row by row, with ``<split>_labels.npy``, bare or in zips.

    Shape:
        images (B, 3, 32, 32), uint8; labels (B,), int64.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f'CIFAR-10: {folder} is not a folder')
    for place in (folder, folder / 'cifar-10-batches-py'):
        if all((place / name).is_file() for name in OFFICIAL[split]):
            images, labels = _read_official(place, split)
            break
    else:
        files = _mosaic_files(folder)
        if f'{split}_labels.npy' not in files:
            raise ValueError(
                f'CIFAR-10: neither {OFFICIAL[split]} nor mosaics '
                f'{split}_*.webp with {split}_labels.npy in {folder}'
            )
        images, labels = _read_mosaics(files, split)
    return (
        torch.from_numpy(np.ascontiguousarray(images)),
        torch.from_numpy(labels.astype(np.int64)),
    )


class DeviceLoader:
    """Batches of normalised, channels-last images from tensors on a device.

    Args:
        images: (B, 3, 32, 32), uint8.
        labels: (B,), int64.
        augment (bool): shuffle, crop after padding by 4, flip.
        generator: of the shuffling and the augmentation, on the CPU.
        mean, std: of each channel, of pixels between 0 and 1.

    Shape:
        yields (b, 3, 32, 32), float, and (b,), int64.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        batch_size: int,
        augment: bool,
        device: torch.device | str = 'cpu',
        generator: torch.Generator | None = None,
        mean: Sequence[float] = MEAN,
        std: Sequence[float] = STD,
    ):
        # Channels last, so that a crop is a gather of whole pixels.
        self.images = images.permute(0, 2, 3, 1).contiguous().to(device)
        self.labels = labels.to(device)
        self.batch_size = batch_size
        self.augment = augment
        self.device = torch.device(device)
        self.generator = generator
        if augment:
            pad = (0, 0, PADDING, PADDING, PADDING, PADDING)
            self.images = torch.nn.functional.pad(self.images, pad)
        self.mean = torch.tensor(mean, device=device) * 255
        self.scale = 1 / (torch.tensor(std, device=device) * 255)

    def __len__(self) -> int:
        """Batches of an epoch; the last, smaller one counts."""
        return -(-len(self.labels) // self.batch_size)

    def _random(self, high: int, size: int) -> Tensor:
        values = torch.randint(high, (size,), generator=self.generator)
        return values.to(self.device)

    def _crop(self, chosen: Tensor) -> Tensor:
        size = len(chosen)
        pixels = torch.arange(SIZE, device=self.device)
        rows = self._random(2 * PADDING + 1, size)[:, None] + pixels
        columns = self._random(2 * PADDING + 1, size)[:, None] + pixels
        flip = self._random(2, size)[:, None].bool()
        columns = torch.where(flip, columns.flip(1), columns)
        return self.images[chosen[:, None, None], rows[:, :, None], columns[:, None, :]]

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        total = len(self.labels)
        if self.augment:
            order = torch.randperm(total, generator=self.generator)
            order = order.to(self.device)
        else:
            order = torch.arange(total, device=self.device)
        for chosen in order.split(self.batch_size):
            pixels = self._crop(chosen) if self.augment else self.images[chosen]
            pixels = (pixels.float() - self.mean) * self.scale
            yield pixels.permute(0, 3, 1, 2), self.labels[chosen]
