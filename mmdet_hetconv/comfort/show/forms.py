"""One detector in three forms: dense, heterogeneous, deployed."""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mmdet.structures import DetDataSample
from PIL import Image

from ...convert import make_dense
from ...utils.errors import UserError
from .inferencer import HetInferencer
from .reading import IN_COLOUR, Reading

HET = 'HetConv'
DEPLOYED = 'HetConv, deployed'
# A picture of more takes gigabytes to decode.
MAX_PIXELS = 50_000_000


@dataclass(frozen=True)
class Detection:
    """What one form has found in one image.

    Attributes:
        image: as the detector reads it, BGR most often.
        sample: detections, of any score.
        ms: time of the network and what makes boxes of its outputs,
            milliseconds.
    """

    image: np.ndarray
    sample: DetDataSample
    ms: float


class Forms:
    """The forms of a heterogeneous detector, by name.

    Args:
        config, weights (str): of the heterogeneous detector; trained weights.
        dense (tuple[str, str], optional): config and weights of a dense one.
            By default the same function in dense convolutions, which differs
            in its time only.

    Raises:
        UserError: a mistake in one of the files.
    """

    def __init__(self, config: str, weights: str, dense: tuple[str, str] | None = None):
        if dense:
            name, plain = 'dense', HetInferencer(*dense)
        else:
            name = 'dense, same function'
            plain = HetInferencer(config, weights)
            plain.model = make_dense(plain.model)
        self._inferencers = {
            name: plain,
            HET: HetInferencer(config, weights),
            DEPLOYED: HetInferencer(config, weights, deploy=True),
        }
        self._warm: set[tuple] = set()

    @property
    def names(self) -> list[str]:
        return list(self._inferencers)

    def detect(self, path: str, name: str) -> Detection:
        """Detect in an image file with one form.

        Raises:
            UserError: the file is no image, or has too many pixels; the
                message names the file without its folder.
        """
        inferencer = self._inferencers[name]
        image = read_upload(Path(path), inferencer.reading)
        batch = inferencer.collate([image])
        kind = name, batch['inputs'][0].shape
        if kind not in self._warm:
            # The deployed form chooses its kernels for every new size.
            inferencer.forward(batch)
            self._warm.add(kind)
        start = time.perf_counter()
        (sample,) = inferencer.forward(batch)
        sample = sample.cpu()  # waits for a GPU
        ms = 1e3 * (time.perf_counter() - start)
        return Detection(image, sample, ms)

    def draw(self, found: Detection, name: str, score_thr: float):
        """The image with boxes above a score, RGB."""
        inferencer = self._inferencers[name]
        drawn = inferencer.draw(found.image, found.sample, score_thr)
        return drawn[..., ::-1]

    def counts(self, found: Detection, name: str, score_thr: float) -> dict[str, int]:
        """How many objects of each class have more than a score."""
        classes = self._inferencers[name].classes
        instances = found.sample.pred_instances
        labels = instances.labels[instances.scores > score_thr].tolist()
        return {classes[label]: labels.count(label) for label in sorted(set(labels))}


def read_upload(path: Path, reading: Reading = IN_COLOUR) -> np.ndarray:
    """An image from somebody else, as a detector reads images.

    Raises:
        UserError: as :meth:`Forms.detect`.
    """
    try:
        with Image.open(path) as image:  # reads the size only
            width, height = image.size
    except (Image.DecompressionBombError, OSError, ValueError) as error:
        if not isinstance(error, Image.DecompressionBombError):
            raise UserError(f'{path.name} is not an image that can be read') from error
        width = height = MAX_PIXELS
    if width * height > MAX_PIXELS:
        raise UserError(f'{path.name} has more than {MAX_PIXELS / 1e6:.0f} million pixels')
    try:
        return reading.file(path)
    except UserError as error:
        raise UserError(str(error).replace(str(path), path.name)) from error
