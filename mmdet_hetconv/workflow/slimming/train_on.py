"""The config that fine-tunes a converted detector, with the dense one as a teacher.

A converted and distilled detector has nearly converged: it gets one epoch at a tenth of
the rate, which decays from the start, not the whole schedule again.
"""

from pathlib import Path
from typing import Any

from mmengine.config import Config

# Of the config's rate.
SHARE = 0.1


def train_on(out: Path, cfg: Config, precision: str, dense_weights: Path) -> str:
    """The text of ``out``/train_on.py.

    Args:
        cfg: of the dense detector.
        precision: in which the trained one is deployed.
    """
    teacher = dict(
        type='TeacherHook',
        config=str(out / 'dense.py'),
        checkpoint=str(dense_weights),
        # A distilled detector's distance is small beside the other losses.
        weight=10,
        norm_eval=True,
    )
    loop = dict(_delete_=True, type='EpochBasedTrainLoop', max_epochs=1, val_interval=1)
    keys: dict[str, Any] = dict(
        load_from=str(out / 'converted.pth'),
        train_cfg=loop,
        param_scheduler=[
            dict(type='CosineAnnealingLR', T_max=1, by_epoch=True, convert_to_iter_based=True)
        ],
        default_hooks=dict(checkpoint=dict(by_epoch=True, interval=1)),
        # The list takes the place of the config's.
        custom_hooks=[*(cfg.get('custom_hooks') or ()), teacher],
    )
    rate = ((cfg.get('optim_wrapper') or {}).get('optimizer') or {}).get('lr')
    if isinstance(rate, int | float):
        keys['optim_wrapper'] = dict(optimizer=dict(lr=float(f'{SHARE * rate:g}')))
    if _counts_iterations(cfg):
        keys |= dict(
            # Its sampler has no end.
            train_dataloader=dict(sampler=dict(_delete_=True, type='DefaultSampler', shuffle=True)),
            log_processor=dict(by_epoch=True),
        )
    return (
        f'# python tools/train.py {out / "train_on.py"}\n'
        f'# python tools/deploy.py {out / "converted.py"} CHECKPOINT --precision {precision} '
        '--out trained_on.pth\n'
        f"_base_ = 'converted.py'\n{Config(keys).pretty_text}"
    )


def _counts_iterations(cfg: Config) -> bool:
    loop = cfg.get('train_cfg') or {}
    return 'Iter' in str(loop.get('type', '')) or not loop.get('by_epoch', True)
