#!/usr/bin/env python
"""A trained dense detector to a faster one: convert, distil, deploy, compare.

examples:
  python tools/slim.py dense.py dense.pth --out slim --target-macs 0.5
  python tools/slim.py dense.py dense.pth --out slim --p 4 --data-root ~/my_data \\
      --distil 10m --precision int8
"""

import argparse
import warnings
from collections.abc import Sequence

warnings.filterwarnings('ignore', 'pkg_resources is deprecated')  # mmengine's, at its import

from mmdet_hetconv.comfort.data.own_data import own_images
from mmdet_hetconv.comfort.show.comparison.report_page import write_report_page
from mmdet_hetconv.deploy.precision import PRECISIONS
from mmdet_hetconv.utils.announce import announce
from mmdet_hetconv.utils.arguments import (
    DISTIL,
    add_budget,
    add_calibration,
    add_cfg_options,
    length,
    tool_parser,
)
from mmdet_hetconv.utils.errors import one_sentence
from mmdet_hetconv.workflow.calibration_images import Images
from mmdet_hetconv.workflow.config.configs import read_config
from mmdet_hetconv.workflow.slimming.slim import slim


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = tool_parser('slim.py', __doc__)
    parser.add_argument('config', help='config of the dense detector')
    parser.add_argument('checkpoint', help="the dense detector's")
    parser.add_argument(
        '--out',
        required=True,
        metavar='DIR',
        help='config, checkpoints and report; a step whose file is there is not done again',
    )
    budget = add_budget(parser)
    budget.add_argument('--p', type=int, metavar='P', help='of every layer (default: 4)')
    parser.add_argument(
        '--distil',
        type=length,
        default=DISTIL,
        metavar='STEPS',
        help='how long all layers are trained together, steps or minutes as 15m '
        '(default: 1000, but at most 12m)',
    )
    parser.add_argument(
        '--permute',
        action='store_true',
        help='choose which channels share a block, where that folds into the neighbours',
    )
    parser.add_argument(
        '--arrangement',
        choices=['blocked', 'permuted'],
        default='blocked',
        help='permuted: --permute, and what cannot be folded every layer stores, and permutes '
        'its channels while it runs: nearer to the dense network, and slower',
    )
    parser.add_argument('--precision', choices=PRECISIONS, default='fp32', help='default: fp32')
    parser.add_argument(
        '--exclude', nargs='+', default=[], metavar='NAME', help='layers or modules to stay dense'
    )
    add_calibration(parser, 256, 'images to fit to, without labels')
    add_cfg_options(parser)
    args = parser.parse_args(argv)
    if args.target_macs is None and args.target_ms is None:
        args.p = args.p or 4
    if args.p is not None and args.p < 2:
        parser.error(f'--p {args.p} is less than 2')
    return args


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    with one_sentence('slim.py'):
        cfg = read_config(args.config, args.cfg_options)
        folder = own_images(args.data_root, [cfg], args.checkpoint)
        report = slim(
            cfg,
            args.checkpoint,
            args.out,
            p=args.p,
            target_macs=args.target_macs,
            target_ms=args.target_ms,
            images=Images(args.calib, folder, args.seed),
            distil=args.distil,
            permute=args.permute,
            arrangement=args.arrangement,
            precision=args.precision,
            exclude=args.exclude,
        )
        page = write_report_page(args.out)
        announce(f'{page} is the report: {report["sentence"]}')
        announce(f'next, {report["next"]}')


if __name__ == '__main__':
    main()
