#!/usr/bin/env python
"""Export a detector to ONNX: raw outputs, or with --end2end from an image to boxes.

examples:
  python tools/export_onnx.py CONFIG CHECKPOINT --out model.onnx --end2end
  python model_detect.py IMAGE            # onnxruntime, no torch, no mmdet
  python model_detect.py IMAGE openvino
  python tools/test.py CONFIG model.onnx  # mAP of that file
"""

import argparse
import warnings
from collections.abc import Sequence

warnings.filterwarnings('ignore', 'pkg_resources is deprecated')  # mmengine's, at its import

from mmdet_hetconv.comfort.data.own_data import own_images
from mmdet_hetconv.utils.announce import announce
from mmdet_hetconv.utils.arguments import add_calibration, add_conversion, tool_parser
from mmdet_hetconv.utils.errors import one_sentence
from mmdet_hetconv.workflow.calibration_images import Images
from mmdet_hetconv.workflow.config.configs import read_config
from mmdet_hetconv.workflow.exporting import export


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = tool_parser('export_onnx.py', __doc__)
    add_conversion(parser, '--size', "image to trace with; the config's test size by default")
    parser.add_argument(
        '--precision',
        choices=['fp32', 'int8'],
        default='fp32',
        help='of the graph (default: fp32); int8 looks at images',
    )
    parser.add_argument(
        '--end2end',
        action='store_true',
        help='one graph from an image, uint8 (H, W, C) in the order of cv2.imread, to boxes in '
        'its pixels, scores and labels; a script that runs it is written beside it',
    )
    add_calibration(parser, 64, 'images that set the levels of int8')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    with one_sentence('export_onnx.py'):
        cfg = read_config(args.config, args.cfg_options)
        folder = own_images(args.data_root, [cfg], args.checkpoint)
        written = export(
            cfg,
            args.checkpoint,
            args.out,
            end2end=args.end2end,
            precision=args.precision,
            size=args.size,
            images=Images(args.calib, folder, args.seed),
        )
        outputs = ', '.join(written.outputs)
        announce(f'{written.path} written, {written.checks}, outputs: {outputs}')
        if written.script:
            announce(f'{written.script} runs it without torch and mmdet')


if __name__ == '__main__':
    main()
