"""From a config file to a detector and its cost."""

import copy
from collections.abc import Iterable

from mmdet.models.necks.ssd_neck import L2Norm
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import init_default_scope
from torch import nn

from mmdet_hetconv.models import set_p
from mmdet_hetconv.models.building import explained_build
from mmdet_hetconv.models.config import walk
from mmdet_hetconv.utils.errors import UserError

from .complexity import Complexity, count_complexity


def input_shape(cfg: Config) -> tuple[int, int]:
    """Height and width that test images have in a config, as padded.

    Raises:
        UserError: the test pipeline has no Resize with one scale.
    """
    pipeline = cfg.get('test_dataloader', {}).get('dataset', {})
    for step in pipeline.get('pipeline', ()):
        if step.get('type') == 'Resize' and len(step.get('scale', ())) == 2:
            width, height = step['scale']
            if step.get('keep_ratio'):
                height, width = sorted((height, width))
            divisors = [part.get('pad_size_divisor', 1) for _, part in walk(cfg.model)]
            divisor = max(divisors)
            return tuple(-(-n // divisor) * divisor for n in (height, width))
    raise UserError(
        f'{cfg.filename}: its test pipeline has no Resize with one scale, '
        'so the size of the image has to be given'
    )


def build_detector(model_cfg: dict) -> nn.Module:
    """The detector of a config, with no weights loaded.

    Raises:
        UserError: values that its components do not take.
    """
    init_default_scope('mmdet')
    with explained_build(model_cfg):
        model = MODELS.build(copy.deepcopy(model_cfg))
    for module in model.modules():
        if isinstance(module, L2Norm):
            # mmdet leaves it as the memory was, NaN at times.
            nn.init.constant_(module.weight, module.scale)
    return model


def count_config(model_cfg: dict, shape: tuple[int, int]) -> Complexity:
    """Cost of the detector of a config, see :func:`count_complexity`."""
    model = build_detector(model_cfg)
    try:
        return count_complexity(model, shape)
    except (NotImplementedError, RuntimeError) as error:
        # Operations of mmcv.ops, deformable convolution for one, have no
        # meta implementation.
        first = str(error).strip().splitlines()[0]
        print_log(f'Counting on the CPU: {first}', 'current')
        return count_complexity(model, shape, 'cpu')


def compare_p(
    model_cfg: dict, values: Iterable[int], shape: tuple[int, int]
) -> dict[str, Complexity]:
    """Cost of the same detector at several p, by 'p=...'.

    Raises:
        UserError: the config names no HetConv; a p other than 1 that fits
            no layer.
    """
    results = {}
    for p in values:
        result = count_config(set_p(model_cfg, p), shape)
        if p != 1 and not any(map(result.heterogeneous, result.components())):
            raise UserError(f'nothing was converted: p={p} fits no layer')
        results[f'p={p}'] = result
    return results
