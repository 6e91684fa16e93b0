#!/usr/bin/env python
"""MACs and parameters of a detector, part by part; needs no data set.

examples:
  python tools/get_flops.py configs/faster_rcnn_het_r50_full.py --p 1 4 8
  python tools/get_flops.py configs/ssd300_het_vgg16.py --shape 300 300
"""

import argparse
import warnings
from collections.abc import Sequence

warnings.filterwarnings('ignore', 'pkg_resources is deprecated')  # mmengine's, at its import

from mmdet_hetconv.analysis import (
    compare_p,
    complexity_table,
    count_config,
    input_shape,
    save_csv,
    save_json,
)
from mmdet_hetconv.utils.arguments import add_cfg_options, add_shape, tool_parser
from mmdet_hetconv.utils.errors import one_sentence
from mmdet_hetconv.utils.files import check_writable_file
from mmdet_hetconv.workflow.config.configs import merge_options, read_config


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = tool_parser('get_flops.py', __doc__)
    parser.add_argument('config', help='config file of a detector')
    add_shape(parser)
    parser.add_argument(
        '--p',
        type=int,
        nargs='+',
        help='parts of HetConv to compare; default: as the config has it',
    )
    parser.add_argument('--csv', help='write the table to this file')
    parser.add_argument('--json', help='write the table to this file')
    add_cfg_options(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    with one_sentence('get_flops.py'):
        for option, file in (('--csv', args.csv), ('--json', args.json)):
            if file:
                check_writable_file(file, option)
        cfg = read_config(args.config)
        merge_options(cfg, args.cfg_options)
        shape = tuple(args.shape or input_shape(cfg))
        if args.p:
            results = compare_p(cfg.model, args.p, shape)
        else:
            results = {'as configured': count_config(cfg.model, shape)}
        print(complexity_table(results))
        if args.csv:
            save_csv(results, args.csv)
        if args.json:
            save_json(results, args.json)


if __name__ == '__main__':
    main()
