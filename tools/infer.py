#!/usr/bin/env python
"""Detect in an image, a folder of images, a video or a camera's pictures.

examples:
  python tools/infer.py CONFIG CHECKPOINT my_photos --out-dir drawn
  python tools/infer.py CONFIG CHECKPOINT film.mp4 --json found.json --deploy
  python tools/infer.py CONFIG CHECKPOINT 0 --out-dir drawn
"""

import argparse
import warnings
from collections.abc import Sequence

warnings.filterwarnings('ignore', 'pkg_resources is deprecated')  # mmengine's, at its import

from mmdet_hetconv.comfort.show.infer import OUT_DIR, infer
from mmdet_hetconv.utils.arguments import add_cfg_options, tool_parser
from mmdet_hetconv.utils.errors import one_sentence


def positive(text: str) -> int:
    """A number above 0."""
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = tool_parser('infer.py', __doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument(
        'input',
        help='an image, a folder, a video, the number of a camera (0) or the '
        "address of a stream; a camera's pictures end with Ctrl-C",
    )
    parser.add_argument(
        '--out-dir',
        metavar='DIR',
        help='draw the detections into DIR: images under their own names, a '
        f'video as NAME.mp4; {OUT_DIR} if there is no --json either',
    )
    parser.add_argument(
        '--json', metavar='FILE', help='write all detections there, in the results format of COCO'
    )
    parser.add_argument(
        '--ann-file',
        metavar='FILE',
        help='COCO annotations that give --json the ids of images and '
        "categories; default: the number in an image's name (else the name; "
        'of a video the frame, from 0), and classes counted from 1',
    )
    parser.add_argument(
        '--score-thr',
        type=float,
        default=0.3,
        metavar='SCORE',
        help='the least score that is drawn; --json has all',
    )
    parser.add_argument('--batch-size', type=positive, default=1, help='images at once')
    parser.add_argument(
        '--deploy',
        action='store_true',
        help='detect with the inference form; the checkpoint may be one of '
        'tools/deploy.py or a trained one',
    )
    add_cfg_options(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    with one_sentence('infer.py'):
        infer(
            args.config,
            args.checkpoint,
            args.input,
            out_dir=args.out_dir,
            json_file=args.json,
            ann_file=args.ann_file,
            score_thr=args.score_thr,
            batch_size=args.batch_size,
            deploy=args.deploy,
            options=args.cfg_options,
        )


if __name__ == '__main__':
    main()
