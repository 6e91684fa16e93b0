#!/usr/bin/env python
"""Evaluate a checkpoint: COCO mAP or VOC mAP, as the config or data say.

examples:
  python tools/test.py CONFIG CHECKPOINT --data-root ~/my_data --confusion-matrix taken.png
  python tools/test.py CONFIG deployed.pth --deploy
  python tools/test.py CONFIG CHECKPOINT --backend openvino --precision int8
"""

import argparse
import warnings
from collections.abc import Sequence

warnings.filterwarnings('ignore', 'pkg_resources is deprecated')  # mmengine's, at its import

from mmdet_hetconv.comfort.training.run import test
from mmdet_hetconv.deploy.precision import PRECISIONS
from mmdet_hetconv.export.runtimes import BACKENDS
from mmdet_hetconv.utils.arguments import add_number_of_images, add_run, note_rank, tool_parser
from mmdet_hetconv.utils.errors import one_sentence
from mmdet_hetconv.workflow.calibration_images import Images


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = tool_parser('test.py', __doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument(
        'checkpoint', help='checkpoint file, or a graph of tools/export_onnx.py --end2end'
    )
    add_run(parser, 'evaluate')
    parser.add_argument('--out', metavar='FILE.pkl', help='write the predictions there')
    parser.add_argument(
        '--confusion-matrix',
        metavar='FILE.png',
        help='draw which class is taken for which, at scores from 0.3 on',
    )
    parser.add_argument('--show', action='store_true', help='show the detections in a window')
    parser.add_argument(
        '--show-dir', metavar='DIR', help='draw the detections, into WORK_DIR/TIME/DIR'
    )
    parser.add_argument(
        '--wait-time',
        type=float,
        default=2,
        metavar='SECONDS',
        help='how long --show shows an image',
    )
    parser.add_argument('--tta', action='store_true', help='test-time augmentation')
    parser.add_argument(
        '--deploy',
        action='store_true',
        help='evaluate the inference form; the checkpoint may be one of '
        'tools/deploy.py or a trained one',
    )
    parser.add_argument(
        '--backend',
        choices=['torch', *BACKENDS],
        default='torch',
        help='what computes backbone, neck and dense head; others than torch '
        'take a graph, which is exported first',
    )
    parser.add_argument(
        '--precision',
        choices=PRECISIONS,
        help='of --deploy or another backend (default: fp32, or what the checkpoint '
        'was deployed in)',
    )
    add_number_of_images(parser, 64, 'images of the training set that set the levels of int8')
    args = parser.parse_args(argv)
    if args.out and not args.out.endswith(('.pkl', '.pickle')):
        parser.error(f'--out {args.out} has to end in .pkl or .pickle')
    if args.precision and args.backend == 'torch' and not args.deploy:
        parser.error(f'--precision {args.precision} needs --deploy or another --backend')
    note_rank(args)
    return args


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    with one_sentence('test.py'):
        test(
            args.config,
            args.checkpoint,
            data_root=args.data_root,
            work_dir=args.work_dir,
            options=args.cfg_options,
            out=args.out,
            confusion_matrix=args.confusion_matrix,
            show=args.show,
            show_dir=args.show_dir,
            wait_time=args.wait_time,
            tta=args.tta,
            deploy=args.deploy,
            backend=args.backend,
            precision=args.precision,
            images=Images(args.calib),
            skip_checks=args.skip_checks,
            launcher=args.launcher,
        )


if __name__ == '__main__':
    main()
