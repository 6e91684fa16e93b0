#!/usr/bin/env python
"""Train a detector. Ours or any other config of mmdet.

examples:
  python tools/train.py configs/faster_rcnn_het_r50.py
  python tools/train.py configs/faster_rcnn_het_r18_small.py --data-root ~/my_data \\
      --val-loss --patience 5
  python tools/train.py configs/faster_rcnn_het_r18_small.py --data-root ~/my_data \\
      --img-scale 480 --epochs 12 --batch-size 2
  python tools/train.py CONFIG --resume
  python tools/train.py CONFIG --cfg-options train_cfg.max_epochs=3 load_from=het.pth
"""

import argparse
import warnings
from collections.abc import Sequence

warnings.filterwarnings('ignore', 'pkg_resources is deprecated')  # mmengine's, at its import

from mmdet_hetconv.comfort.training.run import train
from mmdet_hetconv.utils.arguments import add_run, count, note_rank, tool_parser
from mmdet_hetconv.utils.errors import one_sentence


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = tool_parser('train.py', __doc__)
    parser.add_argument('config', help='config file')
    add_run(parser, 'train')
    parser.add_argument(
        '--epochs',
        type=count,
        metavar='N',
        help="train N epochs, over which the config's schedule is stretched",
    )
    parser.add_argument(
        '--img-scale',
        type=count,
        nargs='+',
        metavar='SIDE',
        help='resize images to fit SIDE x SIDE, or WIDTH and HEIGHT, in training and evaluation',
    )
    parser.add_argument(
        '--batch-size', type=count, metavar='N', help='images at once in each process'
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='go on with a training: from CHECKPOINT, or from the newest '
        'complete one in the work dir',
    )
    parser.add_argument('--amp', action='store_true', help='mixed precision (GPU only)')
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate with the total batch size',
    )
    parser.add_argument(
        '--val-loss',
        action='store_true',
        help='compute the loss on the validation images, too, after each validation',
    )
    parser.add_argument(
        '--patience',
        type=count,
        metavar='N',
        help='stop after N validations without a metric that is better by 0.001, and keep '
        'the best checkpoint',
    )
    args = parser.parse_args(argv)
    if len(args.img_scale or ()) > 2:
        parser.error('--img-scale takes one or two numbers')
    note_rank(args)
    return args


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    with one_sentence('train.py'):
        train(
            args.config,
            data_root=args.data_root,
            work_dir=args.work_dir,
            options=args.cfg_options,
            epochs=args.epochs,
            img_scale=args.img_scale,
            batch_size=args.batch_size,
            resume=args.resume,
            amp=args.amp,
            auto_scale_lr=args.auto_scale_lr,
            val_loss=args.val_loss,
            patience=args.patience,
            skip_checks=args.skip_checks,
            launcher=args.launcher,
        )


if __name__ == '__main__':
    main()
