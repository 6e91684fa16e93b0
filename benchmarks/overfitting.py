r"""Is HetConv less prone to over-fitting? Dense against het on less data.

    python benchmarks/overfitting.py --data DIR --share 1 0.2 0.05 \
        --conv dense het --p 4 --epochs 30 --seeds 0 1 2 --amp

All networks see equally many images, --epochs times the whole training set:
on a share of 0.05 of it these are 20 times as many passes. A seed chooses the
share, so dense and het learn the same images. Rows, with the gap between
the accuracy on the images learnt and on the test set, go to
benchmarks/results/overfitting.csv when their training ends; those that are
there are skipped.
"""

import argparse

import torch
from cifar10 import (
    add_table_arguments,
    add_training_arguments,
    conv_configs,
    run,
    setting_of,
    weights_file,
)
from cifar_data import load_split
from record import RESULTS, append_row, has_row
from torch import Tensor

from mmdet_hetconv.utils.private_folder import private_folder


def take_share(split: tuple[Tensor, Tensor], share: float, seed: int) -> tuple[Tensor, Tensor]:
    """A random part of the images and their labels."""
    images, labels = split
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator)
    chosen = order[: round(share * len(labels))]
    return images[chosen], labels[chosen]


def share_of(word: str) -> float:
    """A share on the command line, above 0 and at most 1."""
    share = float(word)
    if not 0 < share <= 1:
        raise argparse.ArgumentTypeError(f'{word} is not in (0, 1]')
    return share


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_training_arguments(parser)
    add_table_arguments(parser)
    parser.set_defaults(conv=['dense', 'het'], p=[4], seeds=[0, 1, 2])
    parser.add_argument(
        '--share', type=share_of, nargs='+', default=[1.0, 0.2, 0.05], help='of the training images'
    )
    parser.add_argument(
        '--epochs', type=int, default=30, help='images to see, in sizes of the whole training set'
    )
    parser.add_argument('--out', default=RESULTS / 'overfitting.csv')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    configs = conv_configs(args.conv, args.p)
    splits = {name: load_split(args.data, name) for name in ('train', 'test')}
    for share in args.share:
        for seed in args.seeds:
            part = take_share(splits['train'], share, seed)
            for conv, conv_cfg in configs.items():
                setting = setting_of(args, conv, seed) | dict(share=share)
                if has_row(args.out, setting):
                    continue
                state = weights_file(private_folder('overfitting'), setting)
                print(f'{conv} on {share:g}, seed {seed}', flush=True)
                result = run(
                    args,
                    splits | dict(train=part),
                    conv_cfg,
                    seed,
                    args.epochs / share,
                    every=round(1 / share),
                    state=state,
                )
                gap = float(result['train']) - float(result['final'])
                row = setting | dict(images=len(part[1])) | result
                append_row(args.out, row | dict(gap=f'{gap:.2f}'))
                state.unlink()


if __name__ == '__main__':
    main()
