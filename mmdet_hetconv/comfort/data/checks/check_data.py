"""What can be known to be wrong with a config's data before a run."""

import logging
from pathlib import Path
from typing import NamedTuple

from mmengine.config import Config

from ....utils.announce import announce
from ....utils.errors import UserError
from ....utils.images import check_images
from ....workflow.config.config_parts import (
    class_counts,
    class_names,
    image_folder,
    join_root,
    leaf_datasets,
    loaders,
    type_name,
)
from ..annotations import Annotations
from ..coco import read_coco
from ..image_sizes import check_sizes, turns_images
from ..layouts.voc_dataset import VOC_DATASETS, AnyImageVOCDataset, ImageNames
from ..voc import read_voc
from .checked_images import CheckedImages
from .classes import check_coco_classes, check_voc_classes
from .dropped_images import check_anything_to_learn, describe_dropped
from .evaluators import check_evaluator, only_writes
from .masks import check_masks, needs_masks


class _Shown(NamedTuple):
    """An image that a run reads: named by which file, as how large."""

    by: Path
    size: tuple[float, float] | None
    turned: bool


def check_data(cfg: Config, roles: tuple[str, ...]) -> None:
    """Check annotation files, classes, evaluators and images.

    Images that were found right at an earlier start are not opened again.

    Args:
        cfg: of a run.
        roles: which of 'train', 'val' and 'test' the run uses.

    Raises:
        UserError: names the key or file and the value.
    """
    images: dict[str, _Shown] = {}
    for loader in loaders(cfg, roles):
        leaves = dict(leaf_datasets(cfg[loader].dataset, f'{loader}.dataset'))
        evaluator = loader.replace('dataloader', 'evaluator')
        labelled = loader == 'train_dataloader' or not only_writes(cfg.get(evaluator))
        shown = {path: _check_dataset(leaf, path, cfg, labelled) for path, leaf in leaves.items()}
        known = {path: found for path, found in shown.items() if found}
        for path, found in known.items():
            for warning in found.warnings:
                announce(warning, logging.WARNING)
            if found.unusable:
                use = 'learnt from' if loader == 'train_dataloader' else 'of any use'
                announce(
                    f'{found.path}: {found.unusable} of {found.boxes} boxes are not {use}: they '
                    'are smaller than a pixel or outside of their image',
                    logging.WARNING,
                )
            for image, content in zip(found.images, found.contents):
                images.setdefault(
                    str(Path(image_folder(leaves[path]), image)),
                    _Shown(
                        found.path, content.size, turns_images(leaves[path].get('pipeline') or ())
                    ),
                )
        path, first = next(iter(leaves.items()))
        classes = class_names(first, path)
        if loader == 'train_dataloader':
            _tell_not_learnt(leaves, known)
            if known == shown:
                check_anything_to_learn(list(known.values()), classes)
        check_evaluator(
            cfg.get(evaluator),
            evaluator,
            [f for f in known.values() if f.ids] if known == shown else (),
            classes,
        )
    for named_by in sorted({shown.by for shown in images.values()}):
        named = {i: s for i, s in images.items() if s.by == named_by}
        _check_named(named, named_by)


def _check_named(images: dict[str, _Shown], named_by: Path) -> None:
    """Check the images that one annotation file names, by path."""
    checked = CheckedImages(named_by, {i: (s.size, s.turned) for i, s in images.items()})
    check_images(checked.new, named_by)
    for turned in (True, False):
        sizes = [
            (image, images[image].size)
            for image in checked.new
            if images[image].size and images[image].turned == turned
        ]
        check_sizes(sizes, turned, named_by)
    checked.keep()


def _tell_not_learnt(leaves: dict[str, dict], known: dict[str, Annotations]) -> None:
    """Tell which images and boxes of a training set are not learnt from."""
    for path, found in known.items():
        left_out = describe_dropped(leaves[path], path, found, class_names(leaves[path], path))
        if left_out:
            announce(left_out, logging.WARNING)


def _check_dataset(dataset: dict, path: str, cfg: Config, labelled: bool) -> Annotations | None:
    """Check one data set; None for one of a type or place not known here.

    ``labelled`` is whether a COCO file needs annotations.
    """
    kind = type_name(dataset)
    if dataset.get('backend_args') or '://' in str(dataset.get('data_root')):
        return None
    if not dataset.get('ann_file'):
        return None
    ann_file = join_root(dataset, dataset['ann_file'])
    if kind == 'CocoDataset':
        found = read_coco(ann_file, labelled)
    elif kind in VOC_DATASETS:
        prefix = dataset.get('data_prefix') or {}
        root = Path(join_root(dataset, prefix.get('sub_data_root', '')))
        images = dataset.get('img_subdir', 'JPEGImages')
        any_image = kind == AnyImageVOCDataset.__name__
        found = read_voc(
            ann_file,
            root / dataset.get('ann_subdir', 'Annotations'),
            images,
            ImageNames(root / images) if any_image else '{}.jpg'.format,
            strict=not any_image,
        )
    else:
        return None
    if needs_masks(cfg) and labelled:
        check_masks(found)
    classes = class_names(dataset, path)
    if classes is None:
        raise UserError(f'{path}.metainfo.classes is missing')
    if kind == 'CocoDataset':
        check_coco_classes(classes, found, f'{path}.metainfo.classes')
    else:
        check_voc_classes(classes, found, path)
    for key, part in class_counts(cfg.model):
        if part['num_classes'] != len(classes):
            raise UserError(
                f'{key}.num_classes={part["num_classes"]}, but {path} has {len(classes)} classes'
            )
    return found
