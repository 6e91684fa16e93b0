"""A last batch of one image, which a batch norm on a map of 1 x 1 cannot learn from."""

import copy
import random

import numpy as np
import torch
from mmengine.runner import EpochBasedTrainLoop, Runner

from ...utils.announce import announce
from ...utils.errors import UserError
from ...workflow.checkpoints.checkpoint import unwrap

# What torch says of such a batch norm.
_ONE_VALUE = 'Expected more than 1 value per channel when training'


def leave_out_a_batch_of_one(runner: Runner) -> None:
    """Drop the last batch of an epoch where it is one image that the model cannot take.

    The first image of the training data is tried; weights, statistics and random numbers
    stay as they were.

    Raises:
        UserError: the batch size is 1, or there is one image alone.
    """
    loop = runner.train_loop
    loader = loop.dataloader
    size = getattr(loader.batch_sampler, 'batch_size', None)
    if size is None or not isinstance(loop, EpochBasedTrainLoop):
        return
    images = len(loader.sampler)
    is_last = images % size == 1 and not loader.batch_sampler.drop_last
    if not (is_last or size == 1) or _takes_one(runner, loader):
        return
    text = 'a batch of one image has a map of 1 x 1, which a batch norm cannot learn from'
    if size == 1 or images == 1:
        raise UserError(f'train_dataloader.batch_size={size}, {images} images: {text}')
    loader.batch_sampler.drop_last = True
    loop._max_iters = loop.max_epochs * len(loader)
    announce(
        f'train_dataloader: {text}, so the last batch of {images} images in batches of {size} '
        'is left out of each epoch'
    )


def _takes_one(runner: Runner, loader) -> bool:
    model = unwrap(runner.model)
    if not any(isinstance(m, torch.nn.modules.batchnorm._BatchNorm) for m in model.modules()):
        return True
    states = random.getstate(), np.random.get_state()
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    training = model.training
    model.train()
    try:
        with torch.random.fork_rng(), torch.no_grad():
            data = loader.collate_fn([copy.deepcopy(loader.dataset[0])])
            model._run_forward(model.data_preprocessor(data, True), mode='loss')
    except ValueError as error:
        return _ONE_VALUE not in str(error)
    except Exception:
        return True  # another fault, which the training itself shows
    finally:
        model.train(training)
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name])
        random.setstate(states[0])
        np.random.set_state(states[1])
    return True
