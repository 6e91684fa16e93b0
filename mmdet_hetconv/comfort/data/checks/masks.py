"""Check that boxes have masks if a config needs them."""

from mmengine.config import Config

from ....utils.errors import UserError
from ....workflow.config.config_parts import leaf_datasets
from ..annotations import Annotations


def needs_masks(cfg: Config) -> bool:
    """Whether a training pipeline loads masks, or a metric evaluates them."""
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
    """Refuse boxes without a mask: mmdet would raise a KeyError for them.

    Raises:
        UserError: the file has such boxes.
    """
    if found.without_mask:
        some = '' if found.without_mask == found.boxes else f'{found.without_mask} of '
        raise UserError(
            "the config is for masks (LoadAnnotations with_mask=True, or the evaluator's metric "
            f'segm), but {some}the {found.boxes} boxes of {found.path} have no segmentation'
        )
