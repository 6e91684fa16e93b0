#!/usr/bin/env python
"""Export backbone, neck and dense head to ONNX: raw outputs, any size."""

import argparse
from collections.abc import Sequence

from mmdet_hetconv.engine.arguments import add_cfg_options
from mmdet_hetconv.engine.deploying import export
from mmdet_hetconv.utils.errors import one_sentence


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='export_onnx.py', description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint, deployed or not')
    parser.add_argument('--out', required=True, metavar='FILE.onnx', help='file to write')
    parser.add_argument(
        '--size',
        type=int,
        nargs=2,
        metavar=('HEIGHT', 'WIDTH'),
        help="image to trace with; the config's test size by default",
    )
    add_cfg_options(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    with one_sentence('export_onnx.py'):
        export(args)


if __name__ == '__main__':
    main()
