#!/usr/bin/env python
"""Train a detector. Ours or any other config of mmdet."""

import argparse
import os
from collections.abc import Sequence

from mmdet_hetconv.engine.arguments import add_cfg_options, add_launcher
from mmdet_hetconv.engine.running import train
from mmdet_hetconv.utils.errors import one_sentence


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='train.py', description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--work-dir',
        metavar='DIR',
        help='where logs and checkpoints go; work_dirs/CONFIG by default',
    )
    parser.add_argument(
        '--data-root',
        metavar='DIR',
        help='train on the COCO or VOC data set in DIR instead of the '
        "config's; classes are read from its annotations",
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='go on with a training: from CHECKPOINT, or from the newest '
        'complete one in the work dir',
    )
    parser.add_argument(
        '--amp', action='store_true', help='mixed precision (GPU only)'
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate with the total batch size',
    )
    add_cfg_options(
        parser,
        'overwrite keys of the config, e.g. train_cfg.max_epochs=3 or '
        'a list, key="[a,b]"; after --data-root',
    )
    add_launcher(parser)
    args = parser.parse_args(argv)
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    with one_sentence('train.py'):
        train(args)


if __name__ == '__main__':
    main()
