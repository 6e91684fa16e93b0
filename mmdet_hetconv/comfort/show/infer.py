"""Detect in images, videos and camera pictures, and write what was found."""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

import cv2
import mmcv
import numpy as np
from mmdet.structures import DetDataSample
from rich.progress import track

from ...utils.announce import announce
from ...utils.errors import UserError
from ...utils.files import check_writable, write_whole
from .ground_truth import GroundTruth
from .inferencer import HetInferencer
from .results import coco_results, default_image_id
from .sources import ImageFiles, Picture, Video, open_source

OUT_DIR = 'work_dirs/infer'
# Of so many pictures each has a line of its own.
MOST_LINES = 20


def infer(
    config: str,
    checkpoint: str,
    input: str,
    *,
    out_dir: str | None = None,
    json_file: str | None = None,
    ann_file: str | None = None,
    score_thr: float = 0.3,
    batch_size: int = 1,
    deploy: bool = False,
    options: dict | None = None,
) -> list[dict]:
    """Detect in pictures, and draw or write down what was found.

    Args:
        config, checkpoint: of the detector.
        input: an image, a folder, a video, the number of a camera or a stream's address.
        out_dir: for drawn pictures; :data:`OUT_DIR` if there is no `json_file` either.
        json_file: for all detections, in COCO's results format.
        ann_file: COCO annotations that have the ids of images and categories.
        score_thr: the least score that is drawn and counted.
        batch_size: images at once.
        deploy: detect with the inference form.
        options: keys of the config to overwrite.

    Returns:
        list[dict]: the detections in COCO's results format, of any score; of a live
        source only with `json_file`.

    Raises:
        UserError: a mistake in the config, the checkpoint or the input. Images that
            cannot be read are left out; all others are written before they are named.
    """
    source = open_source(input)
    if not out_dir and not json_file:
        out_dir = OUT_DIR
    _check_outputs(source, out_dir, json_file)
    truth = None
    if ann_file:  # for the ids alone
        truth = GroundTruth(ann_file, labelled=False)
    image_id = _image_ids(source, truth)
    inferencer = HetInferencer(config, checkpoint, deploy, options)
    ids = truth.category_ids(inferencer.classes) if truth else range(1, len(inferencer.classes) + 1)
    pictures = source.pictures(
        lambda items: track(items, 'Inference', total=len(source) or None), inferencer.reading
    )
    results: list[dict] = []
    total: Counter[str] = Counter()
    seconds = 0.0
    count = 0
    with ExitStack() as stack:
        write = _writer(source, out_dir, stack)
        try:
            for batch in _batches(pictures, batch_size):
                for picture in batch if truth else ():
                    truth.check_size(image_id(picture.name), picture.name, picture.pixels)
                started = time.perf_counter()
                samples = inferencer.detect([p.pixels for p in batch])
                seconds += time.perf_counter() - started
                for picture, sample in zip(batch, samples):
                    count += 1
                    found = _count(sample, inferencer.classes, score_thr)
                    total += found
                    if len(source) <= MOST_LINES:
                        announce(f'{picture.name}: {_counted(found)}')
                    if json_file or not source.live:
                        results += coco_results(sample, image_id(picture.name), ids)
                    if out_dir:
                        drawn = inferencer.draw(picture.pixels, sample, score_thr)
                        write(picture, drawn)
        except KeyboardInterrupt:
            if not source.live:
                raise
    if count:
        announce(
            f'{count} pictures, {1e3 * seconds / count:.0f} ms each; of a score of at least '
            f'{score_thr:g}: {_counted(total)}'
        )
    if json_file and count:
        write_whole(json_file, json.dumps(results).encode())
        announce(f'{json_file} written: {len(results)} detections')
    if out_dir and count:
        announce(f'{count} pictures drawn into {out_dir}')
    if source.faults:
        raise UserError('; '.join(source.faults))
    return results


def _count(sample: DetDataSample, classes: Sequence[str], score_thr: float) -> Counter[str]:
    """How many objects of each class were found."""
    found = sample.pred_instances
    return Counter(classes[label] for label in found.labels[found.scores >= score_thr].tolist())


def _counted(found: Counter[str]) -> str:
    names = ', '.join(f'{count} {name}' for name, count in found.most_common(8))
    return f'{found.total()} objects' + f' ({names})' * bool(found)


def _check_outputs(source: ImageFiles | Video, out_dir: str | None, json_file: str | None) -> None:
    """Raise UserError for what cannot be written, or would be overwritten."""
    if out_dir:
        check_writable(out_dir, '--out-dir')
        if source.root and Path(out_dir).samefile(source.root):
            raise UserError(
                f'--out-dir {out_dir} is the folder of the input, which would be overwritten'
            )
    if json_file:
        out = Path(json_file)
        if out.is_dir():
            raise UserError(f'--json {out} is a folder, name a file')
        check_writable(out.parent, '--json')


def _image_ids(source: ImageFiles | Video, truth: GroundTruth | None) -> Callable[[str], int | str]:
    """From a picture's name to its id; images without one are left out.

    Raises:
        UserError: no image has one.
    """
    if truth is None:
        return _own_ids(source)
    if isinstance(source, Video):
        raise UserError('--ann-file is for images, not for a video')
    ids = truth.image_ids(source.names)
    if not ids:
        raise UserError(f'{truth.path} names no image in {source.root}')
    if len(ids) < len(source):
        left = [name for name in source.names if name not in ids]
        announce(f'{len(left)} images that {truth.path} does not name are left out: {left[0]} ...')
    source.names = [name for name in source.names if name in ids]
    return ids.__getitem__


def _own_ids(source: ImageFiles | Video) -> Callable[[str], int | str]:
    """From a picture's name to an id of which there is no second."""
    if isinstance(source, ImageFiles):
        ids = [default_image_id(name) for name in source.names]
        if len(set(ids)) < len(ids):
            ((twice, count),) = Counter(ids).most_common(1)
            announce(
                f'{count} images in {source.root} have the number '
                f"{twice}: the images' names are their ids"
            )
            return str
    return default_image_id


def _batches(pictures: Iterable[Picture], size: int) -> Iterator[list[Picture]]:
    pictures = iter(pictures)
    while batch := list(islice(pictures, size)):
        yield batch


def _writer(
    source: ImageFiles | Video, out_dir: str | None, stack: ExitStack
) -> Callable[[Picture, np.ndarray], None]:
    """Write a drawn picture under its own name, or as a video's next frame."""

    def write_image(picture: Picture, drawn: np.ndarray) -> None:
        name = picture.name if cv2.haveImageWriter(picture.name) else f'{picture.name}.jpg'
        mmcv.imwrite(drawn, str(Path(out_dir) / name))

    if isinstance(source, ImageFiles):
        return write_image
    path = Path(out_dir or '') / f'{source.name}.mp4'
    videos: list[cv2.VideoWriter] = []

    def write_frame(_, drawn: np.ndarray) -> None:
        if not videos:
            size = drawn.shape[1::-1]
            code = cv2.VideoWriter_fourcc(*'mp4v')
            videos.append(cv2.VideoWriter(str(path), code, source.fps, size))
            stack.callback(videos[0].release)
            if not videos[0].isOpened():
                raise UserError(f'video {path} cannot be written')
        videos[0].write(np.ascontiguousarray(drawn))

    return write_frame
