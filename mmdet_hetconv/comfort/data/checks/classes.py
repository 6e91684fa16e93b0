"""Check a config's classes against its annotation files."""

import logging

from ....utils.announce import announce
from ....utils.errors import UserError
from ....utils.suggestion import some
from ..annotations import Annotations


def check_coco_classes(classes: tuple[str, ...], found: Annotations, path: str) -> None:
    """Refuse classes that a COCO file lacks, or has in another order.

    CocoDataset and CocoMetric number classes by the file, not by the list
    they are given: labels would silently be shifted or exchanged.

    Args:
        path: the key in the config, for the message.
    """
    known = tuple(name for name in found.classes if name in classes)
    if known == classes:
        return
    lacking = [name for name in classes if name not in found.classes]
    if lacking:
        raise UserError(
            f'{path}: the class {lacking[0]!r} is no category of '
            f'{found.path}, which has {some(found.classes)} '
            '(--data-root reads the classes from the annotations)'
        )
    raise UserError(
        f'{path}: the classes {some(classes)} are not in the order of the '
        f'categories of {found.path}, which is {some(known)}'
    )


def check_voc_classes(classes: tuple[str, ...], found: Annotations, path: str) -> None:
    """Refuse a VOC data set without an object of the config's classes."""
    unknown = [name for name in found.classes if name not in classes]
    if len(unknown) == len(found.classes):
        raise UserError(
            f'{path}: {found.path} has objects of the classes '
            f'{some(found.classes)}, none of which is one of the '
            f"config's, {some(classes)} (--data-root reads the classes "
            'from the annotations)'
        )
    if unknown:
        announce(f'{path}: objects of the classes {some(unknown)} are not used', logging.WARNING)
