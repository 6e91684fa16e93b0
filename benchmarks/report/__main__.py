"""Draw all measured results and write the page docs/results/all.md."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from mmdet_hetconv.utils.errors import one_sentence

from . import write_results

ROOT = Path(__file__).parents[2]


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='report', description=__doc__)
    parser.add_argument(
        '--results',
        metavar='DIR',
        default=ROOT / 'benchmarks/results',
        help='folder of the CSV files that the scripts in benchmarks/ write',
    )
    parser.add_argument(
        '--out',
        metavar='DIR',
        default=ROOT / 'docs/results',
        help='folder for all.md and the pictures',
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    with one_sentence('report'):
        print(write_results(args.results, args.out))


if __name__ == '__main__':
    main()
