"""The validation loss is that of the weights that are evaluated, whatever averages them."""

import pytest
import torch
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.logging import MessageHub
from mmengine.model import BaseModel
from mmengine.runner import Runner

from mmdet_hetconv.comfort.training.hooks.val_loss import ValLossHook


class Weight(BaseModel):
    """One weight, which is its loss and its prediction; training lowers it by 1 a step."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(10.0))

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return dict(loss=self.weight * 1) if mode == 'loss' else [self.weight.item()]


class Evaluated(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results += data_samples

    def compute_metrics(self, results):
        return dict(weight=results[-1])


class LossOfBatches(ValLossHook):
    """Of a validation set that is no data set of mmdet, and as it is logged at the end."""

    def before_train(self, runner):
        self.loader = runner.val_dataloader


@pytest.mark.parametrize('priority', ['HIGHEST', 'VERY_HIGH', 'NORMAL', 'LOWEST'])
def test_loss_and_metric_are_of_the_same_weights(tmp_path, priority):
    image = dict(inputs=0, data_samples=0)
    loader = dict(
        dataset=[image, image],
        batch_size=1,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=False),
        collate_fn=dict(type='pseudo_collate'),
    )
    average = dict(type='EMAHook', ema_type='ExponentialMovingAverage', momentum=0.25)
    runner = Runner(
        Weight(),
        str(tmp_path),
        train_dataloader=loader,
        val_dataloader=loader,
        train_cfg=dict(by_epoch=True, max_epochs=2),
        val_cfg=dict(),
        val_evaluator=Evaluator([Evaluated()]),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=1.0)),
        custom_hooks=[dict(average, priority=priority), LossOfBatches()],
        default_hooks=dict(checkpoint=None),
        experiment_name=f'val_loss_{priority}',
    )
    runner.train()
    scalars = MessageHub.get_current_instance().log_scalars
    evaluated = scalars['val/weight'].data[0]
    assert len(evaluated) == 2
    assert not set(evaluated) & {8.0, 6.0}  # the raw weights
    assert scalars['val/val_loss'].data[0] == pytest.approx(evaluated)
