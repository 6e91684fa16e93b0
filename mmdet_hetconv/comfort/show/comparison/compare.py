"""Two detectors on the same images: one page that shows where they differ."""

from collections.abc import Sequence
from pathlib import Path

import torch
from rich.progress import track

from ....analysis import build_detector
from ....layers import HetConv2d
from ....utils.announce import announce
from ....utils.errors import UserError
from ....utils.files import check_writable, write_whole
from ....workflow.slimming.measure import Form, measure
from ..ground_truth import GroundTruth
from ..inferencer import HetInferencer
from ..reading import Reading
from ..results import coco_results
from ..sources import ImageFiles, image_folder
from .coco_metrics import coco_metrics
from .disagreement import as_boxes, disagreement
from .page import THRESHOLDS, Compared, render_page

PAGE = 'index.html'


def compare(
    a: tuple[str, str],
    b: tuple[str, str],
    images: str | Path,
    out: str | Path,
    *,
    ann_file: str | None = None,
    deploy: bool = False,
    score_thr: float = 0.3,
    max_images: int = 100,
    rounds: int = 20,
) -> Path:
    """Write a page that shows two detectors on the same images.

    Args:
        a, b: config and checkpoint of each.
        images: folder of images.
        out: folder of the page.
        ann_file: COCO annotations of the images.
        deploy: compare the inference forms.
        score_thr: the least score that is drawn at first.
        max_images: how many are shown, of the largest disagreement.
        rounds: times that each detector is timed, at least 2.

    Returns:
        Path: of the page.

    Raises:
        UserError: a mistake in a config, a checkpoint or the annotations. Images that
            cannot be read are left out; the page is written before they are named.
    """
    source = image_folder(Path(images).expanduser())
    check_writable(out, '--out')
    truth = GroundTruth(ann_file) if ann_file else None
    if truth and not truth.image_ids(source.names):
        raise UserError(f'{truth.path} names no image in {images}')
    inferencers = [HetInferencer(*files, deploy) for files in (a, b)]
    forms = [_form(inferencer) for inferencer in inferencers]
    classes = _all_classes(inferencers)
    reading = _reading(inferencers)
    compared = _detect(inferencers, forms, source, reading, classes, truth)
    if not compared:
        raise UserError('; '.join(source.faults))
    first = reading.file(source.root / compared[0].name)
    measure(forms, [inferencer.collate([first]) for inferencer in inferencers], rounds)
    path = Path(out) / PAGE
    page = render_page(
        [form.row() for form in forms],
        classes,
        compared,
        Path(images).expanduser(),
        score_thr=score_thr,
        max_images=max_images,
        ann_file=ann_file,
    )
    write_whole(path, page.encode())
    announce(f'{path} written: {len(compared)} images, {len(page) / 2**20:.1f} MiB')
    if source.faults:
        raise UserError('; '.join(source.faults))
    return path


def _form(inferencer: HetInferencer) -> Form:
    """The inferencer's detector, to be measured; its layers counted in the trained form."""
    model = build_detector(inferencer.cfg.model)
    het_layers = sum(isinstance(m, HetConv2d) for m in model.modules())
    return Form(
        'HetConv' if het_layers else 'dense',
        inferencer.form,
        inferencer.cfg,
        inferencer.model,
        inferencer.weights,
        sum(p.numel() for p in model.parameters()),
        het_layers,
    )


def _all_classes(inferencers: Sequence[HetInferencer]) -> tuple[str, ...]:
    """A's classes, and then those that only B has."""
    a, b = (inferencer.classes for inferencer in inferencers)
    return a + tuple(name for name in b if name not in a)


def _reading(inferencers: Sequence[HetInferencer]) -> Reading:
    """How both detectors read images.

    Raises:
        UserError: each in its own way.
    """
    a, b = (inferencer.reading for inferencer in inferencers)
    if a != b:
        raise UserError(
            f'A reads images with color_type={a.color_type!r} into '
            f'{a.channels} channels, B with {b.color_type!r} into '
            f'{b.channels}: only detectors that see the same can be compared'
        )
    return a


def _detect(
    inferencers: Sequence[HetInferencer],
    forms: Sequence[Form],
    source: ImageFiles,
    reading: Reading,
    classes: tuple[str, ...],
    truth: GroundTruth | None,
) -> list[Compared]:
    """Both detectors on every image; sets the metrics of their forms."""
    relabel = [torch.tensor([classes.index(c) for c in one.classes]) for one in inferencers]
    ids = truth.category_ids(classes) if truth else []
    known = truth.image_ids(source.names) if truth else {}
    images: list[Compared] = []
    annotated: list[int] = []
    results: tuple[list, list] = ([], [])
    for picture in source.pictures(
        lambda names: track(names, 'Detecting', total=len(source)), reading
    ):
        image_id = known.get(picture.name)
        if image_id is not None:
            truth.check_size(image_id, picture.name, picture.pixels)
        found = []
        for inferencer, labels, mine in zip(inferencers, relabel, results):
            (sample,) = inferencer.detect([picture.pixels])
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
        for form, mine in zip(forms, results):
            form.metrics = coco_metrics(truth.content, annotated, mine)
    return images
