"""MACs and parameters of a detector, part by part; needs no data set."""

import argparse

from mmengine.config import Config, DictAction

from mmdet_hetconv.analysis import (
    complexity_table,
    count_config,
    input_shape,
    save_csv,
    save_json,
)
from mmdet_hetconv.models import set_part


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
        '--p',
        type=int,
        nargs='+',
        help='parts of HetConv to compare; default: as the config has it',
    )
    parser.add_argument('--csv', help='write the table to this file')
    parser.add_argument('--json', help='write the table to this file')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        default={},
        help='settings that override the config, key=value',
    )
    return parser.parse_args()


def main():
    args = parse_args()
    cfg = Config.fromfile(args.config)
    cfg.merge_from_dict(args.cfg_options)
    shape = tuple(args.shape or input_shape(cfg))
    models = {'as configured': cfg.model}
    if args.p:
        models = {f'p={p}': set_part(cfg.model, p) for p in args.p}
    results = {name: count_config(m, shape) for name, m in models.items()}
    print(complexity_table(results))
    if args.csv:
        save_csv(results, args.csv)
    if args.json:
        save_json(results, args.json)


if __name__ == '__main__':
    try:
        main()
    except (OSError, ValueError) as error:
        raise SystemExit(f'get_flops: {error}') from error
