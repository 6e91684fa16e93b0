#!/usr/bin/env python
"""Turn a trained checkpoint into a deployed one, for test.py --deploy.

examples:
  python tools/deploy.py CONFIG CHECKPOINT --out deployed.pth --tune 480 800
  python tools/deploy.py CONFIG CHECKPOINT --out deployed.pth --precision int8 --calib 64
  python tools/deploy.py CONFIG CHECKPOINT --out deployed.pth --backend auto
"""

import argparse
import warnings
from collections.abc import Sequence

warnings.filterwarnings('ignore', 'pkg_resources is deprecated')  # mmengine's, at its import

from mmdet_hetconv.comfort.data.own_data import own_images
from mmdet_hetconv.deploy.precision import PRECISIONS
from mmdet_hetconv.utils.arguments import add_calibration, add_conversion, add_no_eval, tool_parser
from mmdet_hetconv.utils.errors import one_sentence
from mmdet_hetconv.workflow.calibration_images import Images
from mmdet_hetconv.workflow.config.configs import read_config
from mmdet_hetconv.workflow.deployment import deploy


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = tool_parser('deploy.py', __doc__)
    add_conversion(
        parser,
        '--tune',
        'choose the kernels for images of this size on this machine, '
        'store the choices and print them',
    )
    parser.add_argument(
        '--precision',
        choices=PRECISIONS,
        help='number type in which convolutions compute (default: fp32); int8 looks at images',
    )
    parser.add_argument(
        '--backend',
        choices=['torch', 'auto'],
        default='torch',
        help="what computes backbone, neck and dense head: torch with the project's own kernels "
        '(default), or the fastest of them, onnxruntime and OpenVINO, timed in the precision',
    )
    add_calibration(parser, 64, 'images whose feature maps set the levels of int8')
    add_no_eval(parser)
    parser.add_argument(
        '--keep',
        nargs='+',
        default=(),
        metavar='NAME',
        help='layers that do not compute in int8, with * and ? as in file names',
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    with one_sentence('deploy.py'):
        cfg = read_config(args.config, args.cfg_options)
        folder = own_images(args.data_root, [cfg], args.checkpoint)
        deploy(
            cfg,
            args.checkpoint,
            args.out,
            precision=args.precision,
            images=Images(args.calib, folder, args.seed),
            keep=args.keep,
            tune=args.tune,
            evaluates=args.eval,
            backend=args.backend,
        )


if __name__ == '__main__':
    main()
