#!/usr/bin/env python
"""Turn a dense checkpoint into one of a HetConv model, ready to fine-tune.

examples:
  python tools/convert_checkpoint.py dense.py dense.pth configs/faster_rcnn_het_r50.py \\
      --out het.pth --permute --distil
  python tools/convert_checkpoint.py dense.py dense.pth configs/faster_rcnn_het_r50.py \\
      --out het.pth --target-macs 0.5 --data-root ~/my_data
"""

import argparse
import warnings
from collections.abc import Sequence

warnings.filterwarnings('ignore', 'pkg_resources is deprecated')  # mmengine's, at its import

from mmdet_hetconv.comfort.data.own_data import own_images
from mmdet_hetconv.utils.arguments import (
    DISTIL,
    add_budget,
    add_calibration,
    add_cfg_options,
    add_no_eval,
    length,
    tool_parser,
)
from mmdet_hetconv.utils.errors import one_sentence
from mmdet_hetconv.workflow.calibration_images import Images
from mmdet_hetconv.workflow.config.configs import read_config
from mmdet_hetconv.workflow.conversion import convert


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = tool_parser('convert_checkpoint.py', __doc__)
    parser.add_argument('dense_config', help='config of the dense detector')
    parser.add_argument(
        'checkpoint',
        help="the dense detector's checkpoint, or its backbone's alone: a "
        'file, a URL or torchvision://NAME',
    )
    parser.add_argument('het_config', help='config of the same detector with HetConv layers')
    parser.add_argument('--out', required=True, metavar='FILE', help='checkpoint to write')
    parser.add_argument(
        '--method',
        choices=['lstsq', 'free'],
        default='lstsq',
        help='lstsq: fit every layer to the dense one on images (default); '
        'free: project the weights, without images',
    )
    add_calibration(parser, 256, 'images to fit to, without labels')
    add_no_eval(parser)
    parser.add_argument(
        '--permute',
        action='store_true',
        help='choose which channels share a block, where the order of the channels is free (lstsq)',
    )
    parser.add_argument(
        '--distil',
        nargs='?',
        type=length,
        const=DISTIL,
        metavar='STEPS',
        help="then train all layers together towards the dense detector's features on the "
        'same images, without labels: STEPS, or minutes as 15m; if neither is said, 1000 '
        'steps, but at most 12m (lstsq)',
    )
    add_budget(parser)
    add_cfg_options(parser, 'overwrite keys of both configs')
    args = parser.parse_args(argv)
    for name in ('permute', 'distil', 'target_macs', 'target_ms'):
        if getattr(args, name) and args.method == 'free':
            parser.error(f'--{name.replace("_", "-")} needs images: --method lstsq')
    return args


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    with one_sentence('convert_checkpoint.py'):
        cfgs = [
            read_config(path, args.cfg_options) for path in (args.dense_config, args.het_config)
        ]
        folder = own_images(args.data_root, cfgs, args.checkpoint)
        fitted = args.method == 'lstsq'
        convert(
            cfgs[0],
            args.checkpoint,
            cfgs[1],
            args.out,
            images=Images(args.calib, folder, args.seed) if fitted else None,
            permute=args.permute,
            distil=args.distil,
            target_macs=args.target_macs,
            target_ms=args.target_ms,
            evaluates=args.eval,
        )


if __name__ == '__main__':
    main()
