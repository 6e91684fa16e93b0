#!/usr/bin/env python
"""Draw training images with their boxes, and count them, before a training.

examples:
  python tools/browse_data.py --data-root ~/my_data
"""

import argparse
import warnings
from collections.abc import Sequence

warnings.filterwarnings('ignore', 'pkg_resources is deprecated')  # mmengine's, at its import

from mmdet_hetconv.comfort.data.browse import browse
from mmdet_hetconv.utils.arguments import count, tool_parser
from mmdet_hetconv.utils.errors import one_sentence


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = tool_parser('browse_data.py', __doc__)
    parser.add_argument('--data-root', required=True, metavar='DIR', help='in any known layout')
    parser.add_argument('--out', metavar='FILE.png', default='browse.png', help='of the sheet')
    parser.add_argument('--number', type=count, default=16, metavar='N', help='images (16)')
    parser.add_argument('--seed', type=int, default=0, help='of the choice of images')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    with one_sentence('browse_data.py'):
        browse(args.data_root, args.out, number=args.number, seed=args.seed)


if __name__ == '__main__':
    main()
