#!/usr/bin/env python
"""Evaluate a checkpoint: COCO mAP or VOC mAP, as the config or data say."""

import argparse
import os
from collections.abc import Sequence

from mmdet_hetconv.engine.arguments import add_cfg_options, add_launcher
from mmdet_hetconv.engine.running import test
from mmdet_hetconv.utils.errors import one_sentence


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='test.py', description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument(
        '--work-dir',
        metavar='DIR',
        help='where logs go; work_dirs/CONFIG by default',
    )
    parser.add_argument(
        '--data-root',
        metavar='DIR',
        help='evaluate on the COCO or VOC data set in DIR instead of the '
        "config's; classes are read from its annotations",
    )
    parser.add_argument(
        '--out', metavar='FILE.pkl', help='write the predictions there'
    )
    parser.add_argument(
        '--show', action='store_true', help='show the detections in a window'
    )
    parser.add_argument(
        '--show-dir',
        metavar='DIR',
        help='draw the detections, into WORK_DIR/TIME/DIR',
    )
    parser.add_argument(
        '--wait-time',
        type=float,
        default=2,
        metavar='SECONDS',
        help='how long --show shows an image',
    )
    parser.add_argument(
        '--tta', action='store_true', help='test-time augmentation'
    )
    parser.add_argument(
        '--deploy',
        action='store_true',
        help='evaluate the inference form; the checkpoint may be one of '
        'tools/deploy.py or a trained one',
    )
    parser.add_argument(
        '--backend',
        choices=['torch', 'onnxruntime'],
        default='torch',
        help='what computes backbone, neck and head; onnxruntime takes '
        'single-stage detectors, and exports them first',
    )
    add_cfg_options(parser, 'overwrite keys of the config; after --data-root')
    add_launcher(parser)
    args = parser.parse_args(argv)
    if args.out and not args.out.endswith(('.pkl', '.pickle')):
        parser.error(f'--out {args.out} has to end in .pkl or .pickle')
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    with one_sentence('test.py'):
        test(args)


if __name__ == '__main__':
    main()
