"""Two detectors on the same images: one page that shows where they differ."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.progress import track

from ...utils.announce import announce
from ...utils.errors import UserError
from ...utils.files import check_writable, write_whole
from .coco_metrics import coco_metrics
from .disagreement import as_boxes, disagreement
from .ground_truth import GroundTruth
from .page import THRESHOLDS, Compared, render_page
from .reading import Reading
from .results import coco_results
from .side import Side, load_side, measure
from .sources import ImageFiles, image_folder

PAGE = 'index.html'


def compare(args: argparse.Namespace, sides: Sequence[Side] = (), **more: Any) -> None:
    """What ``tools/compare.py`` does with its arguments.

    Args:
        sides: forms of detectors, in place of those that the arguments name; the
            first is A, the last B, the others are timed beside them.
        more: what else the page shows, see :func:`render_page`.

    Raises:
        UserError: a mistake in the command line, a config, a checkpoint or
            the annotations. Images that cannot be read are left out; the page
            is written before they are named.
    """
    source = image_folder(Path(args.images).expanduser())
    check_writable(args.out, '--out')
    truth = GroundTruth(args.ann_file) if args.ann_file else None
    if truth and not truth.image_ids(source.names):
        raise UserError(f'{truth.path} names no image in {args.images}')
    forms = sides or [
        load_side(name, *pair, args.deploy) for name, pair in (('A', args.a), ('B', args.b))
    ]
    sides = (forms[0], forms[-1])
    classes = _all_classes(sides)
    images = _detect(sides, source, classes, truth)
    if not images:
        raise UserError('; '.join(source.faults))
    image = _reading(sides).file(source.root / images[0].name)
    measure(forms, image, args.rounds)
    out = Path(args.out) / PAGE
    page = render_page(args, forms, classes, images, **more)
    write_whole(out, page.encode())
    announce(f'{out} written: {len(images)} images, {len(page) / 2**20:.1f} MiB')
    if source.faults:
        raise UserError('; '.join(source.faults))


def _all_classes(sides: Sequence[Side]) -> tuple[str, ...]:
    """A's classes, and then those that only B has."""
    a, b = (side.inferencer.classes for side in sides)
    return a + tuple(name for name in b if name not in a)


def _reading(sides: Sequence[Side]) -> Reading:
    """How both detectors read images.

    Raises:
        UserError: each in its own way.
    """
    a, b = (side.inferencer.reading for side in sides)
    if a != b:
        raise UserError(
            f'A reads images with color_type={a.color_type!r} into '
            f'{a.channels} channels, B with {b.color_type!r} into '
            f'{b.channels}: only detectors that see the same can be compared'
        )
    return a


def _detect(
    sides: Sequence[Side], source: ImageFiles, classes: tuple[str, ...], truth: GroundTruth | None
) -> list[Compared]:
    """Both detectors on every image; their metrics are set."""
    relabel = [torch.tensor([classes.index(c) for c in side.inferencer.classes]) for side in sides]
    ids = truth.category_ids(classes) if truth else []
    known = truth.image_ids(source.names) if truth else {}
    images: list[Compared] = []
    annotated: list[int] = []
    results: tuple[list, list] = ([], [])
    for picture in source.pictures(
        lambda names: track(names, 'Detecting', total=len(source)), _reading(sides)
    ):
        image_id = known.get(picture.name)
        if image_id is not None:
            truth.check_size(image_id, picture.name, picture.pixels)
        found = []
        for side, labels, mine in zip(sides, relabel, results):
            (sample,) = side.inferencer.detect([picture.pixels])
            sample.pred_instances.labels = labels[sample.pred_instances.labels]
            if image_id is not None:
                mine += coco_results(sample, image_id, ids)
            found.append(as_boxes(sample))
        if image_id is not None:
            annotated.append(image_id)
        height, width = picture.pixels.shape[:2]
        images.append(
            Compared(
                picture.name,
                (width, height),
                None if image_id is None else truth.boxes(image_id),
                found,
                [disagreement(*found, score) for score in THRESHOLDS],
            )
        )
    if annotated:
        for side, mine in zip(sides, results):
            side.metrics = coco_metrics(truth.content, annotated, mine)
    return images
