"""A model whose convolutions are converted when a config builds it."""

from collections.abc import Mapping
from typing import Any

from mmengine.registry import MODELS
from torch import nn

from .convert_model import convert_model


@MODELS.register_module('ConvertedModel')
def converted_model(
    model: dict[str, Any], layers: Mapping[str, int], arrangement: str = 'blocked'
) -> nn.Module:
    """Build a model, then convert the layers that are named.

    For a p of each layer's own, and where components take no conv_cfg:
    ``model = dict(type='ConvertedModel', model=dict(...), layers={...})``. What is
    built is the inner model itself; names and checkpoints are its own.

    Args:
        model (dict): config of the model.
        layers (Mapping[str, int]): p by pattern, as of :func:`convert_model`; 1 is
            dense, as is what no pattern names.
        arrangement (str): 'blocked' or 'shifted'.

    Raises:
        ValueError: as :func:`convert_model`.
    """
    built: nn.Module = MODELS.build(model)
    if any(p != 1 for p in layers.values()):
        convert_model(built, p=None, layers=layers, arrangement=arrangement)
    return built
