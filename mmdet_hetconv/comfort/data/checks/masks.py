"""Whether boxes have the masks that a config trains on or evaluates."""

from mmengine.config import Config

from ....utils.errors import UserError
from ....workflow.config.config_parts import leaf_datasets
from ..annotations import Annotations


def needs_masks(cfg: Config) -> bool:
    """Whether a pipeline loads masks for a training, or a metric counts them."""
    if cfg.get('train_dataloader'):
        dataset = cfg.train_dataloader.dataset
        parts = [dataset, *(leaf for _, leaf in leaf_datasets(dataset, ''))]
        if any(step.get('with_mask') for part in parts for step in part.get('pipeline') or ()):
            return True
    for name in ('val_evaluator', 'test_evaluator'):
        evaluator = cfg.get(name) or ()
        metrics = [evaluator] if isinstance(evaluator, dict) else evaluator
        if any('segm' in (part.get('metric') or ()) for part in metrics):
            return True
    return False


def check_masks(found: Annotations) -> None:
    """Refuse boxes without a mask, on which mmdet ends with a KeyError.

    Raises:
        UserError: the file has some.
    """
    if found.without_mask:
        some = '' if found.without_mask == found.boxes else f'{found.without_mask} of '
        raise UserError(
            "the config is for masks (LoadAnnotations with_mask=True, or the evaluator's metric "
            f'segm), but {some}the {found.boxes} boxes of {found.path} have no segmentation'
        )
