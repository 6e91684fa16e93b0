"""The loss on the validation set, beside its metric."""

import copy
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ....utils.errors import UserError
from ....workflow.checkpoints import checkpoint
from ....workflow.config.config_parts import leaf_datasets


@HOOKS.register_module()
class ValLossHook(Hook):
    """Computes the training loss on the validation images, in eval mode.

    Weights, statistics and the random numbers of the training do not change. The
    mean over all images of all processes is logged as ``val_loss``, parts of it
    as ``val_loss_cls`` and so on.

    Images come through the validation pipeline, but annotations are loaded before
    they are resized: stock pipelines load them behind it, where boxes would be those of
    the original image.
    """

    # After the logger, so that its line of the last iteration stays as it was.
    priority = 'LOWEST'

    def before_train(self, runner) -> None:
        loader = copy.deepcopy(runner.cfg.val_dataloader)
        for key, leaf in leaf_datasets(loader.dataset, 'val_dataloader.dataset'):
            leaf['pipeline'] = _annotated_first(leaf.get('pipeline') or [], key)
        self.loader = Runner.build_dataloader(loader, seed=0)

    def after_val_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        # A hook that averages weights, of whatever priority, exchanges them around all
        # iterations: after the last one they still are those that are evaluated.
        if batch_idx + 1 == len(runner.val_dataloader):
            self._log_loss(runner)

    @torch.no_grad()
    def _log_loss(self, runner) -> None:
        model = checkpoint.unwrap(runner.model)
        was_training = model.training
        model.eval()
        sums: dict[str, torch.Tensor] = {}
        images = 0
        with torch.random.fork_rng():
            torch.manual_seed(0)
            for batch in self.loader:
                data = model.data_preprocessor(batch, False)
                _, parts = model.parse_losses(model(**data, mode='loss'))
                count = len(data['data_samples'])
                images += count
                for name, value in parts.items():
                    value = torch.as_tensor(value, dtype=torch.double) * count
                    sums[name] = sums.get(name, 0) + value
        model.train(was_training)
        seen = torch.tensor(float(images), dtype=torch.double, device=get_device())
        all_reduce(seen)
        for name, value in sums.items():
            value = value.to(get_device())
            all_reduce(value)
            runner.message_hub.update_scalar(f'val/val_{name}', (value / seen).item())


def _annotated_first(pipeline: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    """The steps with those that load something first, in their order."""
    loading = [step for step in pipeline if step['type'].startswith('Load')]
    if not any('Annotations' in step['type'] for step in loading):
        raise UserError(f'--val-loss: {key}.pipeline loads no annotations')
    return loading + [step for step in pipeline if step not in loading]
