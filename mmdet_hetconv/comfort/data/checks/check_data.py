"""What can be known to be wrong with a config's data before a run."""

import logging
from pathlib import Path

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

# Width and height by the annotations, and whether the pipeline rotates by EXIF.
_Expected = tuple[tuple[float, float] | None, bool]


def check_data(cfg: Config, roles: tuple[str, ...]) -> None:
    """Check annotation files, classes, evaluators and images.

    Images that were found right at an earlier start are not opened again.

    Args:
        cfg: of a run.
        roles: which of 'train', 'val' and 'test' the run uses.

    Raises:
        UserError: names the key or file and the value.
    """
    # Of each annotation file, by path of the image.
    images: dict[Path, dict[str, _Expected]] = {}
    for loader in loaders(cfg, roles):
        leaves = dict(leaf_datasets(cfg[loader].dataset, f'{loader}.dataset'))
        evaluator = loader.replace('dataloader', 'evaluator')
        trains = loader == 'train_dataloader'
        labelled = trains or not only_writes(cfg.get(evaluator))
        checked = {path: _check_dataset(leaf, path, cfg, labelled) for path, leaf in leaves.items()}
        known = {path: found for path, found in checked.items() if found}
        for path, found in known.items():
            _warn(found, trains)
            turned = turns_images(leaves[path].get('pipeline') or ())
            folder = Path(image_folder(leaves[path]))
            for image, content in zip(found.images, found.contents):
                expected = images.setdefault(found.path, {})
                expected.setdefault(str(folder / image), (content.size, turned))
            if trains:
                classes = class_names(leaves[path], path)
                dropped = describe_dropped(leaves[path], path, found, classes)
                if dropped:
                    announce(dropped, logging.WARNING)
        path, first = next(iter(leaves.items()))
        classes = class_names(first, path)
        if trains and known == checked:
            check_anything_to_learn(list(known.values()), classes)
        with_ids = [found for found in known.values() if found.ids]
        shown = with_ids if known == checked else ()
        check_evaluator(cfg.get(evaluator), evaluator, shown, classes)
    for named_by in sorted(images):
        _check_named(images[named_by], named_by)


def _warn(found: Annotations, trains: bool) -> None:
    for warning in found.warnings:
        announce(warning, logging.WARNING)
    if found.unusable:
        use = 'learnt from' if trains else 'of any use'
        announce(
            f'{found.path}: {found.unusable} of {found.boxes} boxes are not {use}: they '
            'are smaller than a pixel or outside of their image',
            logging.WARNING,
        )


def _check_named(images: dict[str, _Expected], named_by: Path) -> None:
    """Check the images that one annotation file names, by path."""
    checked = CheckedImages(named_by, images)
    check_images(checked.new, named_by)
    known = ((image, *images[image]) for image in checked.new)
    check_sizes([(image, size, turned) for image, size, turned in known if size], named_by)
    checked.keep()


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
