"""A detector from one file, for a notebook or a script."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import mmcv
import numpy as np
from mmdet.structures import DetDataSample
from mmengine.config import Config

from ...utils.errors import UserError
from ...workflow.checkpoints import checkpoint as checkpoints
from ...workflow.config.configs import recorded_config
from ...workflow.deployment import PLAN
from .inferencer import HetInferencer
from .sources import ImageFiles, open_source

SHOW_DIR = 'work_dirs/show'


@dataclass(frozen=True)
class Detections:
    """What was found in one image, above the score of the detector.

    Attributes:
        image: name of the file; '' for an array.
        boxes: (n, 4), x1 y1 x2 y2 in pixels, float32.
        scores: (n,), float32, the highest first.
        labels: (n,), int64, numbers of the classes.
        names: of the classes, n of them.
    """

    image: str
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.scores)

    def __str__(self) -> str:
        lines = [f'{self.image or "image"}: {len(self)} objects']
        for name, score, box in zip(self.names, self.scores, self.boxes):
            lines.append(f'  {name} {score:.2f} at {" ".join(f"{side:.0f}" for side in box)}')
        return '\n'.join(lines)


class Detector:
    """Detects when it is called, and shows what it found last.

    Args:
        inferencer (HetInferencer): of a checkpoint.
        score_thr (float): detections below are left out.
    """

    def __init__(self, inferencer: HetInferencer, score_thr: float = 0.3):
        self.inferencer = inferencer
        self.score_thr = score_thr
        self._last: list[tuple[str, np.ndarray, DetDataSample]] = []

    @property
    def classes(self) -> tuple[str, ...]:
        return self.inferencer.classes

    def __call__(self, images: str | Path | np.ndarray) -> Detections | list[Detections]:
        """Detect, print and return what is found.

        Args:
            images: an image file; a folder of them; or the pixels of one, uint8
                (H, W, 3) in the order BGR, as cv2.imread gives them.

        Returns:
            Detections | list[Detections]: a list for a folder.

        Raises:
            UserError: there is no such file, or it is no image.
        """
        self._last = [
            (name, pixels, self.inferencer.detect([pixels])[0])
            for name, pixels in self._pictures(images)
        ]
        found = [self._detections(name, sample) for name, _, sample in self._last]
        print(*found, sep='\n')
        is_folder = not isinstance(images, np.ndarray) and Path(images).expanduser().is_dir()
        return found if is_folder else found[0]

    def show(self, out_dir: str | Path = SHOW_DIR) -> list[Path]:
        """Draw the last detections into files.

        Returns:
            list[Path]: of the pictures, which are printed, too.

        Raises:
            UserError: nothing was detected in yet.
        """
        if not self._last:
            raise UserError('nothing to show: call the detector with an image first')
        paths = []
        for name, pixels, sample in self._last:
            path = Path(out_dir) / (name or 'image.jpg')
            mmcv.imwrite(self.inferencer.draw(pixels, sample, self.score_thr), str(path))
            paths.append(path)
        print(*paths, sep='\n')
        return paths

    def _pictures(self, images: str | Path | np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        if isinstance(images, np.ndarray):
            yield '', images
            return
        source = open_source(str(images))
        if not isinstance(source, ImageFiles):
            raise UserError(f'{images} is no image; tools/infer.py reads videos and cameras')
        for picture in source.pictures(iter, self.inferencer.reading):
            yield picture.name, picture.pixels
        if source.faults:
            raise UserError('; '.join(source.faults))

    def _detections(self, name: str, sample: DetDataSample) -> Detections:
        found = sample.pred_instances
        found = found[found.scores >= self.score_thr]
        found = found[found.scores.argsort(descending=True)]
        labels = found.labels.numpy()
        return Detections(
            name,
            found.bboxes.numpy(),
            found.scores.numpy(),
            labels,
            tuple(self.classes[label] for label in labels),
        )


def load(
    checkpoint: str | Path, config: str | Path | None = None, *, score_thr: float = 0.3
) -> Detector:
    """Load a trained or deployed detector.

    Args:
        checkpoint: its file.
        config: its config; by default the one that the checkpoint keeps, which is read as
            data, not run.
        score_thr: detections below are left out.

    Raises:
        UserError: the checkpoint keeps no config, and none is given; a mistake in either.

    Example:
        >>> detector = load('deployed.pth')  # doctest: +SKIP
        >>> detector('photo.jpg').names  # doctest: +SKIP
        ('cat', 'dog')
    """
    content = checkpoints.read_checkpoint(checkpoint)
    cfg = str(config) if config else _kept_config(content, checkpoint)
    inferencer = HetInferencer(cfg, str(checkpoint), deploy=PLAN in content)
    return Detector(inferencer, score_thr)


def _kept_config(content: dict, checkpoint: str | Path) -> Config:
    sections: Sequence[str] = ('model', 'test_dataloader')
    kept = recorded_config(content)
    missing = [section for section in sections if section not in kept]
    if missing:
        raise UserError(
            f'checkpoint {checkpoint} keeps no config with {missing[0]}: name its config, '
            'load(checkpoint, config)'
        )
    return Config(kept)
