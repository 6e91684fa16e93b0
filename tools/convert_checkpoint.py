#!/usr/bin/env python
"""Turn a dense checkpoint into one of a HetConv model, ready to fine-tune."""

import argparse
import math
from collections.abc import Sequence

from mmdet_hetconv.engine.arguments import add_calibration, add_cfg_options, add_no_eval
from mmdet_hetconv.engine.converting import convert
from mmdet_hetconv.utils.errors import one_sentence


def length(text: str) -> dict[str, float]:
    """'800' are steps, '15m' are minutes."""
    is_minutes = text.endswith('m')
    try:
        number = float(text[:-1]) if is_minutes else int(text)
    except ValueError:
        number = 0
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(
            f'{text!r} is neither a number of steps nor one of minutes, as 15m'
        )
    return dict(minutes=number) if is_minutes else dict(steps=number)


def positive(text: str) -> float:
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f'{text!r} is not a number above 0')
    return number


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='convert_checkpoint.py', description=__doc__)
    parser.add_argument('dense_config', help='config of the dense detector')
    parser.add_argument(
        'checkpoint',
        help="the dense detector's checkpoint, or its backbone's alone: a "
        'file, a URL or torchvision://NAME',
    )
    parser.add_argument('het_config', help='config of the same detector with HetConv layers')
    parser.add_argument('--out', required=True, metavar='FILE', help='checkpoint to write')
    parser.add_argument(
        '--method',
        choices=['lstsq', 'free'],
        default='lstsq',
        help='lstsq: fit every layer to the dense one on images (default); '
        'free: project the weights, without images',
    )
    add_calibration(parser, 256, 'images to fit to, without labels')
    add_no_eval(parser)
    parser.add_argument(
        '--permute',
        action='store_true',
        help='choose which channels share a block, where the order of the channels is free (lstsq)',
    )
    parser.add_argument(
        '--distil',
        nargs='?',
        type=length,
        const='1000',
        metavar='STEPS',
        help="then train all layers together towards the dense detector's features on the "
        'same images, without labels: 1000 steps, or STEPS, or minutes, as 15m (lstsq)',
    )
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument(
        '--target-macs',
        type=positive,
        metavar='SHARE',
        help='choose a p for each HetConv layer of het_config, so that the detector has this '
        "share of the dense one's MACs, as 0.4; writes the config beside the checkpoint (lstsq)",
    )
    budget.add_argument(
        '--target-ms',
        type=positive,
        metavar='MS',
        help='the same for so many milliseconds of backbone, neck and dense head, deployed in '
        'fp32 on this machine (lstsq)',
    )
    add_cfg_options(parser, 'overwrite keys of both configs')
    args = parser.parse_args(argv)
    for name in ('permute', 'distil', 'target_macs', 'target_ms'):
        if getattr(args, name) and args.method == 'free':
            parser.error(f'--{name.replace("_", "-")} needs images: --method lstsq')
    return args


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    with one_sentence('convert_checkpoint.py'):
        convert(args)


if __name__ == '__main__':
    main()
