"""A detector as a config and a checkpoint describe it."""

from mmdet.registry import MODELS
from mmengine.config import Config
from torch import nn

from ..checkpoints import checkpoint as checkpoints
from .configs import read_config
from .preflight import check_model, explained_build


def build_detector(cfg: Config) -> nn.Module:
    """The detector of a config, in eval mode, its weights not loaded.

    Raises:
        UserError: values that its components do not take; HetConv that fits no layer.
    """
    with explained_build(cfg):
        model = MODELS.build(cfg.model)
    check_model(model, cfg)
    return model.eval()


def read_detector(config: str | Config, checkpoint: str) -> tuple[Config, nn.Module, dict]:
    """A config, its detector without weights, and the content of a checkpoint.

    Raises:
        UserError: as :func:`build_detector`; a file that is missing or cannot be read.
    """
    cfg = read_config(config)
    content = checkpoints.read_checkpoint(checkpoint)
    return cfg, build_detector(cfg), content
