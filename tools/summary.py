"""The layers of a detector: heterogeneous, or dense and why."""

import argparse

from mmdet_hetconv.analysis import count_config, input_shape, layer_table
from mmdet_hetconv.engine.configs import (
    OptionsAction,
    merge_options,
    read_config,
)


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file of a detector')
    parser.add_argument(
        '--shape',
        type=int,
        nargs=2,
        metavar=('H', 'W'),
        help="height and width of the image; default: the test pipeline's",
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=OptionsAction,
        default={},
        help='settings that override the config, key=value',
    )
    return parser.parse_args()


def main():
    args = parse_args()
    cfg = read_config(args.config)
    merge_options(cfg, args.cfg_options)
    shape = tuple(args.shape or input_shape(cfg))
    print(layer_table(count_config(cfg.model, shape)))


if __name__ == '__main__':
    try:
        main()
    except (OSError, ValueError) as error:
        raise SystemExit(f'summary: {error}') from error
