"""A trained dense detector that helps to train the converted one.

    custom_hooks = [
        dict(type='TeacherHook', config='dense.py', checkpoint='dense.pth')
    ]

adds ``loss_teacher`` to the detector's own losses: how far its features and
predictions are from the dense detector's on the same images, as in
convert/distillation.py.
"""

from collections.abc import Callable
from typing import Any

import torch
from mmdet.registry import MODELS
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..convert.distillation.features import feature_errors, find_taps, tapped
from ..convert.distillation.predictions import find_predictors
from ..convert.pairing import find_pairs
from ..utils.errors import UserError
from .checkpoints import checkpoint as checkpoints
from .config import preflight
from .config.configs import read_config


@HOOKS.register_module()
class TeacherHook(Hook):
    """Trains towards the features and predictions of a dense detector as well.

    Neither the checkpoints nor the deployed detector know of it: the teacher
    belongs to the hook, not to the model.

    Args:
        config: of the dense detector, as ``tools/train.py`` wrote it beside
            the checkpoint.
        checkpoint: its weights.
        weight: of the sum of these errors among the losses.
        norm_eval: batch norms keep their running statistics, as in mmdet's
            backbones, but in the whole detector: for a distilled one, which
            was made with them and not with those of a batch.

    Raises:
        UserError: the config or the checkpoint cannot be read, or they do
            not belong together.
    """

    def __init__(self, config: str, checkpoint: str, weight: float = 1.0, norm_eval: bool = False):
        if not weight > 0:
            raise UserError(f'TeacherHook: weight must be positive, got {weight}')
        cfg = read_config(config)
        content = checkpoints.read_weights(checkpoint)
        with preflight.explained_build(cfg):
            self.teacher = MODELS.build(cfg.model)
        checkpoints.load_weights(self.teacher, content, checkpoint)
        self.teacher.requires_grad_(False)
        self.config = config
        self.weight = weight
        self.norm_eval = norm_eval

    def before_train(self, runner) -> None:
        """Compare the two detectors and take the student's losses in hand."""
        student = checkpoints.unwrap(runner.model)
        reason = self._why_not_teach(student)
        if reason:
            raise UserError(f'TeacherHook: {self.config} is no teacher of this detector: {reason}')
        device = next(student.parameters()).device
        self.teacher.to(device).eval()
        for name in find_predictors(self.teacher):
            # While they are trained some return boxes in other units (FCOS).
            self.teacher.get_submodule(name).training = True
        # What the detector as a whole returns are its losses: not compared.
        taps = [name for name in find_taps(student) if name]
        student.loss = self._with_teacher(student, student.loss, taps)

    def before_train_iter(self, runner, batch_idx: int, data_batch: Any = None) -> None:
        if self.norm_eval:
            for module in runner.model.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()

    def _why_not_teach(self, student: nn.Module) -> str | None:
        try:
            find_pairs(self.teacher, student)
        except ValueError as error:
            return str(error)
        for name in ('mean', 'std'):
            mine, theirs = (
                getattr(model.data_preprocessor, name, None) for model in (student, self.teacher)
            )
            if (mine is None) != (theirs is None) or (
                mine is not None and not torch.equal(mine.cpu(), theirs.cpu())
            ):
                return f'its images have another {name}'
        return None

    def _with_teacher(
        self, student: nn.Module, loss: Callable[..., dict], taps: list[str]
    ) -> Callable[..., dict]:
        def losses(inputs: Tensor, data_samples: Any) -> dict:
            with tapped(student, taps) as mine:
                result = loss(inputs, data_samples)
            with torch.no_grad(), tapped(self.teacher, taps) as theirs:
                self.teacher(inputs, data_samples, mode='tensor')
            errors = feature_errors(student, mine, theirs)
            total = torch.stack(list(errors.values())).sum()
            return dict(result, loss_teacher=self.weight * total)

        return losses
