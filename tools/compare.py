#!/usr/bin/env python
"""Compare two detectors on a folder of images, in one HTML page.

examples:
  python tools/compare.py --a dense.py dense.pth --b het.py het.pth --images my_photos --out page
  python tools/compare.py --a dense.py dense.pth --b het.py het.pth --images val2017 --out page \\
      --ann-file instances_val2017.json --deploy
"""

import argparse
import warnings
from collections.abc import Sequence

warnings.filterwarnings('ignore', 'pkg_resources is deprecated')  # mmengine's, at its import

from mmdet_hetconv.comfort.show.comparison.compare import PAGE, compare
from mmdet_hetconv.utils.arguments import tool_parser
from mmdet_hetconv.utils.errors import one_sentence


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = tool_parser('compare.py', __doc__)
    for name in 'ab':
        parser.add_argument(
            f'--{name}',
            nargs=2,
            required=True,
            metavar=('CONFIG', 'CHECKPOINT'),
            help=f'detector {name.upper()}',
        )
    parser.add_argument('--images', required=True, metavar='DIR', help='folder of images')
    parser.add_argument(
        '--out', required=True, metavar='DIR', help=f'write DIR/{PAGE}, which needs no other file'
    )
    parser.add_argument(
        '--ann-file',
        metavar='FILE',
        help='COCO annotations of the images: ground truth beside the detections, and AP',
    )
    parser.add_argument(
        '--score-thr',
        type=float,
        default=0.3,
        metavar='SCORE',
        help='the least score that is drawn at first; the page has a slider',
    )
    parser.add_argument(
        '--max-images',
        type=int,
        default=100,
        metavar='N',
        help='show the N images of the largest disagreement; numbers are of all',
    )
    parser.add_argument(
        '--rounds', type=int, default=20, help='times that each detector is timed, at least 2'
    )
    parser.add_argument(
        '--deploy',
        action='store_true',
        help='compare the inference forms; the checkpoints may be deployed or trained ones',
    )
    args = parser.parse_args(argv)
    if args.rounds < 2:
        parser.error(f'--rounds {args.rounds} is less than 2')
    if args.max_images < 1:
        parser.error(f'--max-images {args.max_images} is less than 1')
    return args


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    with one_sentence('compare.py'):
        compare(
            args.a,
            args.b,
            args.images,
            args.out,
            ann_file=args.ann_file,
            deploy=args.deploy,
            score_thr=args.score_thr,
            max_images=args.max_images,
            rounds=args.rounds,
        )


if __name__ == '__main__':
    main()
