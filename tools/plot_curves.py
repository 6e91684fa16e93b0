#!/usr/bin/env python
"""Draw losses, metric and learning rate of trainings over each other.

examples:
  python tools/plot_curves.py work_dirs/dense work_dirs/het --out both.png
"""

import argparse
import warnings
from collections.abc import Sequence

warnings.filterwarnings('ignore', 'pkg_resources is deprecated')  # mmengine's, at its import

from mmdet_hetconv.comfort.training.hooks.curves import draw_curves, read_run
from mmdet_hetconv.utils.announce import announce
from mmdet_hetconv.utils.arguments import tool_parser
from mmdet_hetconv.utils.errors import one_sentence
from mmdet_hetconv.utils.files import check_writable_file


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = tool_parser('plot_curves.py', __doc__)
    parser.add_argument('runs', nargs='+', metavar='WORK_DIR', help='of a training')
    parser.add_argument(
        '--out', metavar='FILE.png', default='curves.png', help='default: curves.png'
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    with one_sentence('plot_curves.py'):
        out = check_writable_file(args.out, '--out')
        draw_curves([read_run(run) for run in args.runs], out)
        announce(f'{out} written')


if __name__ == '__main__':
    main()
