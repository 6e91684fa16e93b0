"""Check that an evaluator's annotation file fits the data set.

CocoMetric of mmdet reads boxes, images and classes from its own ann_file. If this is not the
data set's file, predictions are compared with other images, or count for other classes.
"""

from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from ....utils.errors import UserError
from ....workflow.config.config_parts import is_local, type_name
from ..annotations import Annotations
from ..coco import read_coco
from .classes import check_coco_classes

COCO_METRICS = ('CocoMetric', 'NumberedCocoMetric')


def check_evaluator(
    evaluator: dict | Sequence[dict] | None,
    path: str,
    shown: Sequence[Annotations],
    classes: tuple[str, ...] | None,
) -> None:
    """Check the annotation files that a config's evaluator names.

    Args:
        evaluator: of the config, one or several metrics.
        path: its key.
        shown: the COCO files of the data set; none where they are not known.
        classes: of the data set.

    Raises:
        UserError: a file is wrong by itself, or names other images or other
            classes than the data set.
    """
    for key, metric in _metrics(evaluator, path):
        name = metric.get('ann_file')
        if type_name(metric) not in COCO_METRICS or not name:
            continue
        if not is_local(name):
            continue
        try:
            found = read_coco(name, not metric.get('format_only'))
        except UserError as error:
            raise UserError(f'{key}.ann_file: {error}') from error
        if classes:
            check_coco_classes(classes, found, f'{key}.ann_file')
        if shown:
            _check_images(found, f'{key}.ann_file', shown)


def only_writes(evaluator: dict | Sequence[dict] | None) -> bool:
    """Whether all metrics only write predictions, as for images without annotations."""
    return all(metric.get('format_only') for _, metric in _metrics(evaluator, ''))


def _metrics(evaluator, path: str) -> Iterator[tuple[str, dict]]:
    if isinstance(evaluator, dict):
        yield path, evaluator
    else:
        for number, metric in enumerate(evaluator or ()):
            yield f'{path}[{number}]', metric


def _check_images(counted: Annotations, key: str, shown: Sequence[Annotations]) -> None:
    theirs = dict(zip(counted.ids, counted.images))
    files = ', '.join(str(annotations.path) for annotations in shown)
    ours = {
        number: name
        for annotations in shown
        for number, name in zip(annotations.ids, annotations.images)
    }
    for number, name in ours.items():
        other = theirs.get(number)
        if other is None:
            raise UserError(
                f'{key}: {counted.path} has no image of the id {number!r:.80},'
                f' which is {name} in the data set, {files}'
            )
        if not _same_file(name, other):
            raise UserError(
                f'{key}: the image of the id {number!r:.80} is {other} in '
                f'{counted.path} and {name} in the data set, {files}'
            )
    more = next((number for number in theirs if number not in ours), None)
    if more is not None:
        raise UserError(
            f'{key}: {counted.path} has the image {theirs[more]}, which is '
            f'not in the data set, {files}: its boxes would count as missed'
        )


def _same_file(one: str, other: str) -> bool:
    """Whether two names are equal, up to leading folders of one of them."""
    short, long = sorted((PurePosixPath(one), PurePosixPath(other)), key=_depth)
    return long.parts[-_depth(short) :] == short.parts


def _depth(path: PurePosixPath) -> int:
    return len(path.parts)
