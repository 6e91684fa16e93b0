"""Arguments that several tools share."""

import argparse

from mmengine.config import DictAction


class OptionsAction(DictAction):
    """``--cfg-options KEY=VALUE ...``, as in every tool of mmdet."""

    def __call__(self, parser, namespace, values, option_string=None):
        for pair in values:
            if '=' not in pair:
                raise argparse.ArgumentError(
                    self, f'{pair!r} is not of the form KEY=VALUE'
                )
        super().__call__(parser, namespace, values, option_string)


def add_cfg_options(
    parser: argparse.ArgumentParser, text: str = 'overwrite keys of the config'
) -> None:
    """Add ``--cfg-options``."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=OptionsAction,
        metavar='KEY=VALUE',
        help=text,
    )


def add_shape(parser: argparse.ArgumentParser) -> None:
    """Add ``--shape``."""
    parser.add_argument(
        '--shape',
        type=int,
        nargs=2,
        metavar=('H', 'W'),
        help="height and width of the image; default: the test pipeline's",
    )


def add_launcher(parser: argparse.ArgumentParser) -> None:
    """Add ``--launcher`` and what torchrun adds to the command line."""
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='who started the processes of a distributed run',
    )
    parser.add_argument(
        '--local_rank', '--local-rank', type=int, default=0, help='by torchrun'
    )
