"""A look at a data set, from parsed arguments to a picture."""

import argparse
import random

from mmdet.utils import register_all_modules
from mmengine.config import Config

from ...utils.announce import announce
from ...utils.files import check_writable_file, write_whole
from ...workflow.config_parts import leaf_datasets, read_infos
from .browse import count_boxes, draw_sheet
from .checks.check_data import check_data
from .own_data import use_own_data


def browse(args: argparse.Namespace) -> None:
    """What ``tools/browse_data.py`` does with its arguments.

    Raises:
        UserError: see :func:`use_own_data` and :func:`check_data`; the picture cannot
            be written.
    """
    register_all_modules(init_default_scope=True)
    out = check_writable_file(args.out, '--out')
    loader = dict(dataset=dict(type='CocoDataset'))
    cfg = Config(dict(model={}, train_dataloader=loader, train_cfg=dict(max_epochs=1)))
    use_own_data(cfg, args.data_root)
    check_data(cfg, ('train',))
    leaves = [leaf for _, leaf in leaf_datasets(cfg.train_dataloader.dataset, '')]
    samples = [info for leaf in leaves for info in read_infos(leaf)]
    metainfo = leaves[0].metainfo
    announce('\n' + count_boxes(samples, metainfo['classes']))
    chosen = random.Random(args.seed).sample(samples, min(args.number, len(samples)))
    write_whole(out, draw_sheet(chosen, metainfo))
    announce(f'{out} written: {len(chosen)} of the training images')
