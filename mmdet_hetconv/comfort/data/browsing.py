"""A look at a data set, from parsed arguments to a picture."""

import random
from pathlib import Path

from mmdet.utils import register_all_modules
from mmengine.config import Config

from ...utils.announce import announce
from ...utils.files import check_writable_file, write_whole
from ...workflow.config.config_parts import leaf_datasets, read_infos
from .browse import count_boxes, draw_sheet
from .checks.check_data import check_data
from .own_data import use_own_data


def browse(data_root: str, out: str = 'browse.png', *, number: int = 16, seed: int = 0) -> Path:
    """Draw training images with their boxes on one sheet, and count the boxes.

    Args:
        data_root: a data set in any known layout.
        out: file of the sheet.
        number: of images, drawn from all by `seed`.

    Returns:
        Path: of the sheet.

    Raises:
        UserError: see :func:`use_own_data` and :func:`check_data`; the picture cannot
            be written.
    """
    register_all_modules(init_default_scope=True)
    path = check_writable_file(out, '--out')
    loader = dict(dataset=dict(type='CocoDataset'))
    cfg = Config(dict(model={}, train_dataloader=loader, train_cfg=dict(max_epochs=1)))
    use_own_data(cfg, data_root)
    check_data(cfg, ('train',))
    leaves = [leaf for _, leaf in leaf_datasets(cfg.train_dataloader.dataset, '')]
    samples = [info for leaf in leaves for info in read_infos(leaf)]
    metainfo = leaves[0].metainfo
    announce('\n' + count_boxes(samples, metainfo['classes']))
    chosen = random.Random(seed).sample(samples, min(number, len(samples)))
    write_whole(path, draw_sheet(chosen, metainfo))
    announce(f'{path} written: {len(chosen)} of the training images')
    return path
