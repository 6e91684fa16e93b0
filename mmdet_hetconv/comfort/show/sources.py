"""Where pictures come from: an image, a folder, a video, a camera."""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ...utils.errors import UserError
from ...utils.images import IMAGE_ENDINGS, images_below
from .reading import Reading

# Shows how far an iteration has come.
Progress = Callable[[Iterable], Iterable]
# Of streams and cameras that do not tell.
_FRAMES_PER_S = 25.0


@dataclass(frozen=True)
class Picture:
    """One image.

    Attributes:
        name: file name relative to its folder; a frame's number in a video.
        pixels: as the detector reads images: (height, width, 3), BGR, or
            (height, width) of grey, or (height, width, 4) of BGRA; uint8
            most often.
    """

    name: str
    pixels: np.ndarray


class ImageFiles:
    """Images of one folder, read when it is their turn.

    Attributes:
        root: the folder.
        names: of the files, relative to it.
        faults: what is wrong with those that were left out so far.
    """

    live = False

    def __init__(self, root: Path, names: list[str]):
        self.root = root
        self.names = names
        self.faults: list[str] = []

    def __len__(self) -> int:
        return len(self.names)

    def pictures(self, progress: Progress, reading: Reading) -> Iterator[Picture]:
        """Those that can be read; progress goes over all."""
        self.faults = []
        for name in progress(self.names):
            try:
                pixels = reading.file(self.root / name)
            except UserError as error:
                self.faults.append(str(error))
                continue
            yield Picture(name, pixels)


class Video:
    """Frames of a video file, a stream or a camera.

    Attributes:
        name: of the file, without ending; of the camera.
        root: folder of the file, None if it is none.
        fps: frames a second.
        live: whether it ends only when it is interrupted.
        faults: why it ended before its end, if it did.
    """

    def __init__(self, target: str | int):
        self.faults: list[str] = []
        self.live = isinstance(target, int) or '://' in target
        self.root = None if self.live else Path(target).parent
        self._what = (
            f'camera {target}'
            if isinstance(target, int)
            else f'{"stream" if self.live else "video"} {target}'
        )
        self.name = f'camera_{target}' if isinstance(target, int) else Path(target).stem or 'stream'
        with _quiet():
            self._capture = cv2.VideoCapture(target)
        if not self._capture.isOpened():
            raise UserError(
                f'{self._what} cannot be opened'
                if self.live
                else f'{target} is neither an image nor a video that OpenCV can read'
            )
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps if 0 < fps < 1000 else _FRAMES_PER_S
        self._count = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))

    def __len__(self) -> int:
        """As the file says; 0 if it does not."""
        return 0 if self.live else max(0, self._count)

    def pictures(self, progress: Progress, reading: Reading) -> Iterator[Picture]:
        """The frames, once.

        Raises:
            UserError: a detector of four channels.
        """
        for picture in progress(self._frames()):
            pixels = reading.frame(picture.pixels, self._what)
            yield Picture(picture.name, pixels)

    def _frames(self) -> Iterator[Picture]:
        number = 0
        try:
            while True:
                there, pixels = self._capture.read()
                if not there:
                    break
                yield Picture(str(number), pixels)
                number += 1
        finally:
            self._capture.release()
        if not number:
            self.faults.append(f'{self._what} has no frame that can be read')
        elif number < len(self):
            self.faults.append(f'{self._what} ended after {number} of {len(self)} frames')


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what OpenCV's back ends write about a failure to open."""
    os.environ.setdefault('OPENCV_FFMPEG_LOGLEVEL', '-8')
    log = cv2.utils.logging
    level = log.setLogLevel(log.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        log.setLogLevel(level)


def open_source(name: str) -> ImageFiles | Video:
    """What a name on a command line means.

    Args:
        name (str): an image, a folder with images at any depth, a video, the
            number of a camera, or a stream's address.

    Raises:
        UserError: nothing of that; a folder without images; a video or a
            camera that cannot be opened.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return image_folder(path)
    if path.is_file():
        if path.suffix.lower() in IMAGE_ENDINGS or cv2.haveImageReader(str(path)):
            return ImageFiles(path.parent, [path.name])
        return Video(str(path))
    if name.isdecimal():
        return Video(int(name))
    if '://' in name:
        return Video(name)
    raise UserError(f'{name} does not exist')


def image_folder(root: Path) -> ImageFiles:
    """The images in a folder and in the folders in it, sorted.

    Raises:
        UserError: no such folder, or no image in it.
    """
    if not root.is_dir():
        raise UserError(f'{root} is not a folder')
    names = sorted(
        path.relative_to(root).as_posix() for path in images_below(root) if path.is_file()
    )
    if not names:
        raise UserError(f'folder {root} has no image (that is {", ".join(IMAGE_ENDINGS)})')
    return ImageFiles(root, names)
