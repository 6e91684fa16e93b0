#!/usr/bin/env python
"""Export backbone, neck and dense head to ONNX: raw outputs, any size."""

import argparse
from collections.abc import Sequence

from mmdet_hetconv.engine.arguments import add_calibration, add_conversion
from mmdet_hetconv.engine.exporting import export
from mmdet_hetconv.utils.errors import one_sentence


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='export_onnx.py', description=__doc__)
    add_conversion(parser, '--size', "image to trace with; the config's test size by default")
    parser.add_argument(
        '--precision',
        choices=['fp32', 'int8'],
        default='fp32',
        help='of the graph (default: fp32); int8 looks at images',
    )
    add_calibration(parser, 64, 'images that set the levels of int8')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    with one_sentence('export_onnx.py'):
        export(args)


if __name__ == '__main__':
    main()
