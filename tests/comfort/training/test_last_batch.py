"""A last batch of one image under a batch norm."""

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import Dataset

from mmdet_hetconv.comfort.training import last_batch
from mmdet_hetconv.comfort.training.last_batch import leave_out_a_batch_of_one
from mmdet_hetconv.utils.errors import UserError


class Images(Dataset):
    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, number):
        return dict(inputs=torch.rand(3, 8, 8))


class Pooled(BaseModel):
    def __init__(self, size):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(size), nn.BatchNorm2d(4)
        )

    def forward(self, inputs, mode='tensor'):
        return dict(loss=self.layers(torch.stack(list(inputs))).square().sum())


def runner_of(folder, images, batch_size, size=1, **train_cfg):
    return Runner(
        Pooled(size),
        str(folder),
        train_dataloader=dict(
            dataset=Images(images), sampler=dict(type='DefaultSampler'), batch_size=batch_size
        ),
        train_cfg=train_cfg or dict(by_epoch=True, max_epochs=2),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01)),
        default_hooks=dict(logger=None, checkpoint=None),
        experiment_name=str(folder),
        log_level='ERROR',
    )


def test_it_is_left_out_and_told(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(last_batch, 'announce', said.append)
    runner = runner_of(tmp_path, images=5, batch_size=2)
    before = {name: value.clone() for name, value in runner.model.state_dict().items()}
    torch.manual_seed(3)
    leave_out_a_batch_of_one(runner)
    assert torch.initial_seed() == 3
    assert all(torch.equal(value, before[n]) for n, value in runner.model.state_dict().items())
    assert len(said) == 1 and 'the last batch of 5 images in batches of 2' in said[0]
    runner.train()
    assert (runner.iter, runner.max_iters) == (4, 4)


@pytest.mark.parametrize('images, batch_size, size', [(4, 2, 1), (5, 2, 2), (1, 1, 2), (5, 3, 1)])
def test_nothing_changes_where_it_fits(images, batch_size, size, tmp_path, monkeypatch):
    monkeypatch.setattr(last_batch, 'announce', pytest.fail)
    runner = runner_of(tmp_path, images, batch_size, size)
    leave_out_a_batch_of_one(runner)
    assert len(runner.train_dataloader) == -(-images // batch_size)


@pytest.mark.parametrize('images, batch_size', [(5, 1), (1, 4)])
def test_one_image_alone_is_refused(images, batch_size, tmp_path):
    with pytest.raises(UserError, match=f'batch_size={batch_size}, {images} images: a batch of'):
        leave_out_a_batch_of_one(runner_of(tmp_path, images, batch_size))
