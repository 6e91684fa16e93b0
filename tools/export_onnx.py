#!/usr/bin/env python
"""Export backbone, neck and dense head to ONNX: raw outputs, any size."""

import argparse
from collections.abc import Sequence

from mmdet_hetconv.engine.arguments import add_conversion
from mmdet_hetconv.engine.deploying import export
from mmdet_hetconv.utils.errors import one_sentence


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='export_onnx.py', description=__doc__)
    add_conversion(parser, '--size', "image to trace with; the config's test size by default")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    with one_sentence('export_onnx.py'):
        export(args)


if __name__ == '__main__':
    main()
