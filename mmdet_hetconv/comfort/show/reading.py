"""How a detector reads images: in colour, in grey, with a fourth channel."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import mmcv
import numpy as np

from ...utils.errors import UserError
from ...utils.images import what_is_wrong


@dataclass(frozen=True)
class Reading:
    """What a test pipeline makes of an image, and its network takes.

    Attributes:
        color_type: as of mmdet's LoadImageFromFile: 'color' is BGR, turned
            as the EXIF says; 'unchanged' keeps a fourth channel and does not
            turn; 'grayscale' has no third dimension.
        channels: that the network takes.
    """

    color_type: str = 'color'
    channels: int = 3

    def file(self, path: Path) -> np.ndarray:
        """An image file as (height, width) or (height, width, channels).

        Raises:
            UserError: it cannot be read in full, or has other channels.
        """
        fault = what_is_wrong(str(path))
        if fault:
            raise UserError(f'image {path} {fault}')
        try:
            pixels = mmcv.imfrombytes(path.read_bytes(), self.color_type)
        except (cv2.error, OSError) as error:  # more pixels than OpenCV allows
            raise UserError(f'image {path} cannot be decoded: {error}') from error
        if pixels is None:
            raise UserError(f'image {path} is damaged, it cannot be decoded')
        self._check(pixels, f'image {path}')
        return pixels

    def frame(self, pixels: np.ndarray, what: str) -> np.ndarray:
        """A video's BGR frame as the detector reads images.

        Args:
            what (str): the video's name, for an error.

        Raises:
            UserError: the detector needs a fourth channel.
        """
        if self.color_type.startswith('grayscale'):
            pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY)
        self._check(pixels, what)
        return pixels

    def _check(self, pixels: np.ndarray, what: str) -> None:
        found = channels_of(pixels)
        if found != self.channels:
            raise UserError(
                f'{what} has {found} channels, read with '
                f'color_type={self.color_type!r}, but the network takes '
                f'{self.channels}'
            )


# As mmdet reads images where a config says nothing.
IN_COLOUR = Reading()


def channels_of(image: np.ndarray) -> int:
    """Channels of an image of (height, width) or (height, width, C)."""
    return 1 if image.ndim == 2 else image.shape[2]


def as_bgr(image: np.ndarray) -> np.ndarray:
    """An image to draw on: grey three times, a fourth channel left out."""
    if channels_of(image) == 1:
        return cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    return image[..., :3]
