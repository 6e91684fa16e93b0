"""Process groups, with gloo where mmengine only knows nccl."""

import functools
import gc
from collections.abc import Callable
from datetime import timedelta
from typing import ParamSpec, TypeVar

import torch
from mmengine.config import Config
from mmengine.device import get_device

from ...utils.errors import UserError

P = ParamSpec('P')
T = TypeVar('T')


def use_gloo_on_cpu(cfg: Config) -> None:
    """Prepare a machine without accelerators for ``--launcher pytorch``.

    mmengine's default backend is nccl, its start-up selects a CUDA device,
    and it hands DistributedDataParallel a device number: none of it works
    on a CPU. It does accept a process group that exists already.

    Raises:
        UserError: another launcher without an accelerator.
    """
    if cfg.launcher == 'none' or get_device() != 'cpu':
        return
    if cfg.launcher != 'pytorch':
        raise UserError(
            f'--launcher {cfg.launcher} needs a GPU on every machine; on CPUs '
            'start with torchrun and --launcher pytorch'
        )
    cfg.merge_from_dict(
        {
            'env_cfg.dist_cfg.backend': 'gloo',
            'model_wrapper_cfg': dict(
                type='MMDistributedDataParallel',
                device_ids=None,
                broadcast_buffers=False,
                find_unused_parameters=cfg.get('find_unused_parameters', False),
            ),
        }
    )
    if not torch.distributed.is_initialized():
        seconds = cfg.env_cfg.dist_cfg.get('timeout')
        torch.distributed.init_process_group('gloo', timeout=seconds and timedelta(seconds=seconds))


def leaves_group(work: Callable[P, T]) -> Callable[P, T]:
    """Decorate a program's work: at its end it leaves the process group.

    gloo's threads have ended by then. One that runs while Python shuts down
    may abort the process. The group ends them when its last reference goes;
    those of the work's variables must have gone before, and the runner is in
    cycles.
    """

    @functools.wraps(work)
    def leaving(*args: P.args, **kwargs: P.kwargs) -> T:
        result = work(*args, **kwargs)
        distributed = torch.distributed
        if distributed.is_available() and distributed.is_initialized():
            gc.collect()
            distributed.destroy_process_group()
        return result

    return leaving
