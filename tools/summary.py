#!/usr/bin/env python
"""The layers of a detector: heterogeneous, or dense and why.

examples:
  python tools/summary.py configs/faster_rcnn_het_r50.py
  python tools/summary.py configs/ssd300_het_vgg16.py --shape 300 300
"""

import argparse
import warnings
from collections.abc import Sequence

warnings.filterwarnings('ignore', 'pkg_resources is deprecated')  # mmengine's, at its import

from mmdet_hetconv.analysis import count_config, input_shape, layer_table
from mmdet_hetconv.utils.arguments import add_cfg_options, add_shape, tool_parser
from mmdet_hetconv.utils.errors import one_sentence
from mmdet_hetconv.workflow.config.configs import merge_options, read_config


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = tool_parser('summary.py', __doc__)
    parser.add_argument('config', help='config file of a detector')
    add_shape(parser)
    add_cfg_options(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    with one_sentence('summary.py'):
        cfg = read_config(args.config)
        merge_options(cfg, args.cfg_options)
        shape = tuple(args.shape or input_shape(cfg))
        print(layer_table(count_config(cfg.model, shape)))


if __name__ == '__main__':
    main()
