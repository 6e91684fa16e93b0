"""Images without labels that a conversion or a quantization looks at."""

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from mmcv.transforms import Compose
from mmengine.config import Config
from torch import nn

from ..utils.announce import announce
from ..utils.errors import UserError
from ..utils.images import check_images, images_below
from .config.config_parts import leaf_datasets, read_infos


class ImageBatches(Sequence):
    """Batches of one image each, read through a test pipeline on access."""

    def __init__(self, paths: Sequence[str], pipeline: Sequence[dict]):
        self.paths = paths
        self.pipeline = pipeline
        self._transform = Compose([step for step in pipeline if 'Annotation' not in step['type']])

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> dict:
        sample = dict(img_path=self.paths[number], img_id=number)
        return {key: [value] for key, value in self._transform(sample).items()}


@dataclass(frozen=True)
class Images:
    """A choice of images without labels, for a conversion or a quantization.

    Attributes:
        number: how many, at most.
        folder: where they lie; None for the config's training set.
        seed: of the draw from all that are there.
    """

    number: int
    folder: str | None = None
    seed: int = 0


# How many a conversion is fitted to, and how many set the levels of int8.
TO_FIT = Images(256)
TO_QUANTIZE = Images(64)


def calibration_batches(
    cfg: Config, images: Images, pipeline_of: Config | None = None
) -> ImageBatches:
    """Batches of the chosen images, read through the test pipeline.

    Args:
        cfg: whose training set is drawn from, where no folder is named.
        pipeline_of: whose test pipeline reads them, if not that of `cfg`.
    """
    paths = choose_images(images.folder, cfg, images.number, images.seed)
    return ImageBatches(paths, test_pipeline(pipeline_of or cfg))


def network_inputs(detector: nn.Module, batches: Iterable[dict]) -> Iterator[np.ndarray]:
    """Batches as the detector's network takes them, normalised and padded."""
    for batch in batches:
        yield detector.data_preprocessor(batch)['inputs'].cpu().numpy()


def test_pipeline(cfg: Config) -> list[dict]:
    """The test pipeline of a config."""
    if not cfg.get('test_dataloader'):
        raise UserError(f'config {cfg.filename} has no test_dataloader')
    _, leaf = next(leaf_datasets(cfg.test_dataloader.dataset, ''))
    if not leaf.get('pipeline'):
        raise UserError(f'config {cfg.filename} has no test pipeline')
    return leaf.pipeline


def choose_images(root: str | None, cfg: Config, wanted: int, seed: int) -> list[str]:
    """Draw calibration images at random and check their files; returns paths."""
    if root:
        where = f'--data-root {root}'
        paths = sorted(map(str, images_below(root)))
    else:
        where = "the config's train_dataloader"
        paths = sorted(_training_images(cfg))
    if not paths:
        raise UserError(f'{where} has no images to calibrate with')
    if len(paths) < wanted:
        announce(f'--calib {wanted}: {where} has {len(paths)} images')
    chosen = random.Random(seed).sample(paths, min(wanted, len(paths)))
    check_images(chosen, where)
    return chosen


def _training_images(cfg: Config) -> list[str]:
    if not cfg.get('train_dataloader'):
        raise UserError(
            f'config {cfg.filename} has no train_dataloader; name a folder '
            'of images with --data-root'
        )
    paths = []
    for key, leaf in leaf_datasets(cfg.train_dataloader.dataset, 'train_dataloader.dataset'):
        try:
            infos = read_infos(leaf)
        except (FileNotFoundError, AssertionError) as error:
            raise UserError(
                f'{key} cannot be read ({error}); name a folder of images with --data-root'
            ) from error
        paths += [info['img_path'] for info in infos]
    return paths
