"""``--data-root DIR``: any detection config on another data set."""

import colorsys
from collections.abc import Sequence
from pathlib import Path

from mmdet.datasets import VOCDataset
from mmengine.config import Config, ConfigDict

from ...utils.announce import announce
from ...utils.errors import UserError
from ...workflow.checkpoints.checkpoint import read_weights
from ...workflow.config.config_parts import class_counts, leaf_datasets, type_name
from ...workflow.config.configs import trained_meta
from .checks.masks import check_masks, needs_masks
from .layouts.folders import KEEP, find_data
from .layouts.split import DataFolder, Split
from .layouts.voc_dataset import VOC_DATASETS, AnyImageVOCDataset

_LAYOUTS = {'CocoDataset': 'COCO', **dict.fromkeys(VOC_DATASETS, 'VOC')}
_VOC_FOLDERS = ('VOC2007', 'VOC2012')


def use_own_data(cfg: Config, root: str, keep: str | Path = KEEP) -> None:
    """Point a config at the data set in a folder.

    Sets data sets, classes, every num_classes and the evaluators; keeps pipelines,
    wrappers such as RepeatDataset, and schedules.

    Args:
        keep: folder for the COCO files that other layouts are converted to.

    Raises:
        UserError: the folder holds no data set that fits the config.
    """
    _point_to(cfg, find_data(root, _config_layout(cfg), keep))


def _point_to(cfg: Config, data: DataFolder) -> None:
    if needs_masks(cfg):
        for split in (*data.train, data.val):
            check_masks(split.annotations)
    metainfo = dict(classes=data.classes, palette=palette(len(data.classes)))
    for name, splits in (('train', data.train), ('val', (data.val,)), ('test', (data.val,))):
        loader = cfg.get(f'{name}_dataloader')
        if loader:
            loader.dataset = _replace(loader.dataset, splits, data, metainfo)
        evaluator = cfg.get(f'{name}_evaluator')
        if evaluator:
            cfg[f'{name}_evaluator'] = _evaluator(evaluator, data)
        if data.layout == 'VOC' and name != 'train' and loader:
            for _, leaf in leaf_datasets(loader.dataset, ''):
                leaf.pipeline = _with_annotations(leaf.pipeline)
    for _, part in class_counts(cfg.model):
        part['num_classes'] = len(data.classes)
    announce(str(data))


def _config_layout(cfg: Config) -> str:
    kinds = {
        type_name(leaf)
        for name in ('train', 'val', 'test')
        if cfg.get(f'{name}_dataloader')
        for _, leaf in leaf_datasets(cfg[f'{name}_dataloader'].dataset, name)
    }
    unknown = kinds.difference(_LAYOUTS)
    if unknown or not kinds:
        raise UserError(
            '--data-root is for configs of CocoDataset, VOCDataset and '
            f'XMLDataset, not of {min(unknown, default="none")}'
        )
    return _LAYOUTS[min(kinds)]


def _replace(
    dataset: ConfigDict, splits: tuple[Split, ...], data: DataFolder, metainfo: dict
) -> ConfigDict:
    """The config of a data set with other leaves in the same wrappers."""
    if 'dataset' in dataset:
        dataset.dataset = _replace(dataset.dataset, splits, data, metainfo)
        return dataset
    if 'datasets' in dataset:
        # All parts of a config share one pipeline.
        _, first = next(leaf_datasets(dataset, ''))
        dataset.datasets = [_leaf(first, split, data, metainfo) for split in splits]
        return dataset
    leaves = [_leaf(dataset, split, data, metainfo) for split in splits]
    if len(leaves) == 1:
        return leaves[0]
    return ConfigDict(type='ConcatDataset', ignore_keys=['dataset_type'], datasets=leaves)


def _leaf(old: ConfigDict, split: Split, data: DataFolder, metainfo: dict) -> ConfigDict:
    """The config of one data set: pipeline of the old one, files of the new one."""
    new = ConfigDict({k: v for k, v in old.items() if k not in ('img_subdir', 'ann_subdir')})
    new.data_root = f'{data.root}/'
    new.ann_file = split.ann_file
    new.metainfo = metainfo
    if data.layout == 'COCO':
        new.type = 'CocoDataset'
        new.data_prefix = dict(img=split.images)
        return new
    new.type = _voc_type(split, data)
    new.ann_subdir = split.ann_subdir
    new.img_subdir = split.img_subdir
    new.data_prefix = dict(sub_data_root=split.images)
    if not old.get('test_mode'):
        # A box that is a single point has an infinite regression target.
        # CocoDataset drops it by itself. The 32 pixels of mmdet's config for
        # VOC are a choice for VOC.
        kept = dict(old.get('filter_cfg') or {})
        if not _is_voc(data):
            kept.pop('bbox_min_size', None)
        new.filter_cfg = {'bbox_min_size': 1, **kept}
    return new


def _is_voc(data: DataFolder) -> bool:
    return data.classes == VOCDataset.METAINFO['classes']


def _voc_type(split: Split, data: DataFolder) -> str:
    """The type of a VOC data set: VOCDataset if it reads the files and the classes.

    It reads .jpg images and annotations as VOC writes them. In a folder named VOC2007, it
    and VOCMetric assume the twenty classes of VOC.
    """
    found = split.annotations
    if found.needs_own_reader or not all(name.endswith('.jpg') for name in found.images):
        return AnyImageVOCDataset.__name__
    place = f'{data.root}/{split.images}'
    named = any(name in place for name in _VOC_FOLDERS)
    return 'XMLDataset' if named and not _is_voc(data) else 'VOCDataset'


def _evaluator(old, data: DataFolder):
    """The evaluator, with the metric of the data's layout."""
    if isinstance(old, list | tuple):
        mine, other = 'CocoMetric', 'VOCMetric'
        if data.layout == 'VOC':
            mine, other = other, mine
        if any(type_name(part) == mine for part in old):
            # Replaced by the layout's own metric, the other would occur twice.
            old = [part for part in old if type_name(part) != other]
        return [_evaluator(part, data) for part in old]
    kind = type_name(old)
    if kind not in ('CocoMetric', 'VOCMetric'):
        return old
    ann_file = str(data.val.annotations.path)
    if data.layout == 'COCO':
        if kind == 'VOCMetric':
            old = ConfigDict(type='CocoMetric', metric='bbox')
        return ConfigDict({**old, 'ann_file': ann_file})
    if kind == 'VOCMetric':
        return old
    # VOC2007 averages precision at eleven points, later years take the area.
    mode = '11points' if 'VOC2007' in ann_file.upper() else 'area'
    return ConfigDict(type='VOCMetric', metric='mAP', eval_mode=mode)


def _with_annotations(pipeline: list) -> list:
    """A test pipeline that loads boxes last, so that no step moves them.

    VOCMetric takes the true boxes from the pipeline and expects coordinates of the
    original image.
    """
    load = dict(type='LoadAnnotations', with_bbox=True)
    *steps, pack = (step for step in pipeline if type_name(step) != 'LoadAnnotations')
    return [*steps, load, pack]


def palette(count: int) -> list[tuple[int, int, int]]:
    """Evenly spaced hues, to draw one class each."""
    return [
        tuple(round(255 * part) for part in colorsys.hsv_to_rgb(h, 0.8, 0.9))
        for h in (number / count for number in range(count))
    ]


def own_images(root: str | None, cfgs: Sequence[Config], checkpoint: str) -> str | None:
    """Point configs at ``--data-root`` if it is an annotated data set.

    Its annotations must have the classes of the checkpoint. The images of any other folder
    still serve for calibration.

    Returns:
        str, optional: the folder whose images to use; None if the configs name them.
    """
    if root is None:
        return None
    try:
        data = find_data(root, 'COCO')
    except UserError as error:
        if not Path(root).is_dir():
            raise
        announce(f'{error}; its images are used without annotations')
        return root
    if tuple(trained_meta(read_weights(checkpoint)).get('classes') or ()) != tuple(data.classes):
        announce(
            f'the classes of {root} are not those of the checkpoint: its '
            'images are used without annotations'
        )
        return root
    for cfg in cfgs:
        layout = _config_layout(cfg)
        _point_to(cfg, data if layout == 'COCO' else find_data(root, layout))
    return None
