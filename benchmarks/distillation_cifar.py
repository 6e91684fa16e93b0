"""What distillation without labels gives back to trained CIFAR-10 ResNets.

    python benchmarks/distillation_cifar.py --data DIR --weights DIR --p 2 4

converts the ResNets of trained_resnets.py at each P (all 3 x 3 layers but the
first), calibrates them on 1,000 training images and distils them on --images
of them, crops and flips included, all without labels. A row of
benchmarks/results/distillation_cifar.csv has the accuracy on the test set
before and after, and the processor time of all threads. With --held-out the
accuracy is that on 5,000 training images that are not trained on: for choosing.
With --per-layer each layer has a p of its own, and the network the MACs of that
with P everywhere, as by tools/convert_checkpoint.py --target-macs. With
--permute channels and filters are dealt to the blocks by what they lose, in
orders that each layer stores (arrangement='permuted').
"""

import argparse
import copy
import time

import torch
from record import RESULTS, append_row, has_row
from torch import nn
from trained_resnets import load_images, load_trained, normalised, parser_of, run_all

from mmdet_hetconv.analysis.complexity import count_complexity
from mmdet_hetconv.convert import (
    calibrate,
    choose_p,
    convert_model,
    distil,
    layer_errors,
    rearrange,
)
from mmdet_hetconv.convert.calibration.calibrate import call
from mmdet_hetconv.workflow.layer_choice import CHOICES, macs_by_p

BATCH = 100
CALIBRATED = 1000  # images
HELD_OUT = 5000  # images at the end of the training set


def accuracy(model: nn.Module, images, labels) -> float:
    """Per cent of the images that are classified right."""
    with torch.no_grad():
        classes = [model(normalised(part)).argmax(1) for part in images.split(BATCH)]
    return 100 * (torch.cat(classes) == labels).float().mean().item()


def layers_of_macs(
    dense: nn.Module, names: list[str], p: int, batches: list[torch.Tensor]
) -> dict[str, int]:
    """A p for each layer, with the MACs that they have at `p` together."""
    counted = count_complexity(copy.deepcopy(dense), (32, 32)).layers
    costs = {cost.name: macs_by_p(cost, CHOICES) for cost in counted if cost.name in names}
    budget = sum(by_p[p] for by_p in costs.values())
    errors = layer_errors(dense, batches, call, dict.fromkeys(names, CHOICES))
    return choose_p(errors, costs, budget)


def run(args: argparse.Namespace, depth: int, p: int, seed: int) -> None:
    identity = dict(
        network=f'resnet{depth}',
        p=p,
        chosen='per layer' if args.per_layer else 'uniform',
        arrangement='permuted' if args.permute else 'blocked',
        images=args.images,
        steps=args.steps,
        seed=seed,
        judged_on='held out' if args.held_out else 'test',
    )
    if has_row(args.out, identity):
        return
    torch.manual_seed(seed)
    images, labels = load_images(args.data, 'train')
    if args.held_out:
        judged = images[-HELD_OUT:], labels[-HELD_OUT:]
    else:
        judged = load_images(args.data, 'test')
    if args.images < len(images):
        order = torch.randperm(len(images) - HELD_OUT)[: args.images]
        images = images[order]
    elif args.held_out:
        raise ValueError(
            f'--images {args.images}: with --held-out {len(images) - HELD_OUT} are left to train on'
        )
    judged = [part.to(args.device) for part in judged]
    # As a list of views, and normalised at once: the calibration reads them often.
    batches = list(normalised(images.to(args.device)).split(BATCH))
    dense = load_trained(args.weights, depth, args.device)
    het = copy.deepcopy(dense)
    kind = dict(arrangement=identity['arrangement'])
    report = convert_model(het, p=p, exclude='conv1', **kind)
    started = time.process_time()
    if args.per_layer:
        names = [record.name for record in report.converted]
        layers = layers_of_macs(dense, names, p, batches[: CALIBRATED // BATCH])
        het = copy.deepcopy(dense)
        convert_model(het, p=None, layers=layers, **kind)
    if args.permute:
        rearrange(dense, het, batches[: CALIBRATED // BATCH], call)
    het.to(memory_format=torch.channels_last)
    calibrate(dense, het, batches[: CALIBRATED // BATCH])
    seconds = time.process_time() - started
    calibrated = accuracy(het, *judged)
    print(f'{identity}: calibrated {calibrated:.2f}, {seconds:.0f} s', flush=True)
    started = time.process_time()

    def log(line: str) -> None:
        print(f'{time.process_time() - started:.0f} s of processor time, {line}', flush=True)

    report = distil(dense, het, batches, steps=args.steps, seed=seed, log=log)
    seconds += time.process_time() - started
    row = identity | dict(
        dense=f'{accuracy(dense, *judged):.2f}',
        calibrated=f'{calibrated:.2f}',
        distilled=f'{accuracy(het, *judged):.2f}',
        steps_made=report.steps,
        stopped=report.stopped,
        error_before=f'{report.before:.3f}',
        error_after=f'{report.after:.3f}',
        cpu_seconds=f'{seconds:.0f}',
    )
    append_row(args.out, row)
    print(row, flush=True)


def parse_args() -> argparse.Namespace:
    parser = parser_of(__doc__)
    parser.add_argument('--images', type=int, default=1000)
    parser.add_argument('--steps', type=int, default=1000)
    parser.add_argument('--per-layer', action='store_true')
    parser.add_argument('--out', default=RESULTS / 'distillation_cifar.csv')
    return parser.parse_args()


def main() -> None:
    run_all(parse_args(), run)


if __name__ == '__main__':
    main()
