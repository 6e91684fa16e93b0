"""The parts of a config that describe data sets and classes."""

from collections.abc import Iterator
from pathlib import Path

from mmdet.registry import DATASETS
from mmengine.config import Config, ConfigDict

from ...utils.errors import UserError

# What holds other classes than the data set's, or none.
_CLASSLESS = ('backbone', 'neck', 'rpn_head', 'semantic_head')


def type_name(cfg: dict) -> str:
    """A type's name without scope; lazy configs hold the class itself."""
    kind = cfg.get('type', '')
    return getattr(kind, '__name__', kind).rpartition('.')[-1]


def leaf_datasets(dataset: ConfigDict, path: str) -> Iterator[tuple[str, ConfigDict]]:
    """The data sets inside RepeatDataset, ConcatDataset and the like.

    Yields:
        the key, such as 'train_dataloader.dataset.dataset', and its value.
    """
    if 'dataset' in dataset:
        yield from leaf_datasets(dataset['dataset'], f'{path}.dataset')
    elif 'datasets' in dataset:
        for number, part in enumerate(dataset['datasets']):
            yield from leaf_datasets(part, f'{path}.datasets[{number}]')
    else:
        yield path, dataset


def read_infos(dataset: ConfigDict) -> list[dict]:
    """What a leaf says of each image, as annotated: path, size, boxes.

    Raises:
        FileNotFoundError, AssertionError: its files cannot be read.
    """
    built = DATASETS.build(dict(dataset, pipeline=[], lazy_init=False))
    return [built.get_data_info(number) for number in range(len(built))]


def loaders(cfg: Config, roles: tuple[str, ...]) -> Iterator[str]:
    """The keys of the data loaders that a run with these roles builds."""
    for role in roles:
        if cfg.get(f'{role}_dataloader') and cfg.get(f'{role}_cfg'):
            yield f'{role}_dataloader'


def class_counts(model, path: str = 'model') -> Iterator[tuple[str, dict]]:
    """The dicts in a model's config whose num_classes is the data set's."""
    if isinstance(model, dict):
        if 'num_classes' in model:
            yield path, model
        for key, value in model.items():
            if key not in _CLASSLESS:
                yield from class_counts(value, f'{path}.{key}')
    elif isinstance(model, list | tuple):
        for number, value in enumerate(model):
            yield from class_counts(value, f'{path}[{number}]')


def class_names(dataset: dict, path: str) -> tuple[str, ...] | None:
    """The classes that a data set's config gives it.

    Raises:
        UserError: a string where a list is meant.
    """
    names = dataset.get('metainfo', {}).get('classes')
    if names is None:
        kind = dataset['type']
        kind = DATASETS.get(kind) if isinstance(kind, str) else kind
        names = getattr(kind, 'METAINFO', {}).get('classes')
    elif isinstance(names, str):
        # mmengine takes a string for a file with one class per line.
        if not Path(names).is_file():
            raise UserError(
                f'{path}.metainfo.classes={names!r} is neither a list of names nor a file'
            )
        names = Path(names).read_text().splitlines()
    return None if names is None else tuple(names)


def join_root(dataset: dict, name: str) -> str:
    """A file or folder of a data set, as BaseDataset of mmengine joins it."""
    return str(Path(dataset.get('data_root') or '') / (name or ''))


def image_folder(dataset: dict) -> str:
    """The folder that the images' names are relative to."""
    prefix = dataset.get('data_prefix') or {}
    return join_root(dataset, prefix.get('img', prefix.get('sub_data_root', '')))


def is_local(name: str) -> bool:
    """Whether a name is a file's, not 'torchvision://...' or a URL."""
    return '://' not in name
