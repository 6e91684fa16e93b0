"""Trained CIFAR-10 ResNets, converted and fine-tuned with labels and the teacher.

    python benchmarks/finetuning_cifar.py --data DIR --weights DIR --p 2 4 --epochs 20 --amp

converts the ResNets of trained_resnets.py at each P (all 3 x 3 layers but the
first), calibrates them on 1,000 training images and trains them on all of
them: cross entropy plus the relative errors of the features towards the dense
network's, as tools/train.py does with a TeacherHook. A row of
benchmarks/results/finetuning_cifar.csv has the accuracy on the test set before
and after, and the processor time of all threads. With --held-out the last
5,000 training images are not trained on, and judge: for choosing. With
--distil-steps they are distilled without labels first, on the images that are
trained on; with --labels-only there is no teacher; --permute is that of
distillation_cifar.py.
"""

import argparse
import copy
import functools
import time

import torch
import torch.nn.functional as F
from cifar_data import DeviceLoader
from cifar_train import evaluate, train
from distillation_cifar import BATCH, CALIBRATED, HELD_OUT
from record import RESULTS, append_row, has_row
from trained_resnets import MEAN, STD, load_images, load_trained, normalised, parser_of, run_all

from mmdet_hetconv.convert import calibrate, convert_model, distil, rearrange
from mmdet_hetconv.convert.calibration.calibrate import call
from mmdet_hetconv.layers import HetConv2d

TRAINED_BATCH = 128
# As the dense networks were trained.
WEIGHT_DECAY = 1e-4


def as_dense(conv: HetConv2d, x: torch.Tensor) -> torch.Tensor:
    """The same function by one convolution.

    In bf16 two thirds of the time: narrow groups do not fill the units that
    multiply matrices. The entries outside the kernels are 0 and stay so.
    """
    weight = conv.dense_weight().to(memory_format=torch.channels_last)
    return F.conv2d(x, weight, None, conv.stride, conv.padding, conv.dilation)


def run(args: argparse.Namespace, depth: int, p: int, seed: int) -> None:
    identity = dict(
        network=f'resnet{depth}',
        p=p,
        arrangement='permuted' if args.permute else 'blocked',
        distil_steps=args.distil_steps,
        taught='labels' if args.labels_only else 'labels and features',
        epochs=args.epochs,
        rate=args.rate,
        amp=args.amp,
        seed=seed,
        judged_on='held out' if args.held_out else 'test',
    )
    if has_row(args.out, identity):
        return
    torch.manual_seed(seed)
    images, labels = load_images(args.data, 'train')
    if args.held_out:
        judged = images[-HELD_OUT:], labels[-HELD_OUT:]
        images, labels = images[:-HELD_OUT], labels[:-HELD_OUT]
    else:
        judged = load_images(args.data, 'test')
    numbers = dict(mean=MEAN, std=STD)
    judge = DeviceLoader(*judged, BATCH, augment=False, device=args.device, **numbers)
    generator = torch.Generator().manual_seed(seed)
    loader = DeviceLoader(
        images,
        labels,
        TRAINED_BATCH,
        augment=True,
        device=args.device,
        generator=generator,
        **numbers,
    )
    dense = load_trained(args.weights, depth, args.device)
    het = copy.deepcopy(dense)
    convert_model(het, p=p, exclude='conv1', arrangement=identity['arrangement'])
    het.to(memory_format=torch.channels_last)
    drawn = torch.randperm(len(images), generator=generator)[:CALIBRATED]
    started = time.process_time()
    batches = list(normalised(images[drawn].to(args.device)).split(BATCH))
    if args.permute:
        rearrange(dense, het, batches, call)
    calibrate(dense, het, batches)
    calibrated = evaluate(het, judge)

    print(f'{identity}: calibrated {calibrated:.2f}', flush=True)
    if args.distil_steps:
        crops = list(normalised(images.to(args.device)).split(BATCH))
        distil(dense, het, crops, steps=args.distil_steps, seed=seed, log=print)

    def after_epoch(epoch: int, seen: float) -> None:
        seconds = time.process_time() - started
        print(f'{seconds:.0f} s of processor time, epoch {epoch}: {seen:.2f} % seen', flush=True)

    for conv in het.modules():
        if isinstance(conv, HetConv2d):
            conv.forward = functools.partial(as_dense, conv)
    train(
        het,
        loader,
        args.epochs,
        peak_rate=args.rate,
        weight_decay=WEIGHT_DECAY,
        amp=args.amp,
        after_epoch=after_epoch,
        teacher=None if args.labels_only else dense,
    )
    row = identity | dict(
        dense=f'{evaluate(dense, judge):.2f}',
        calibrated=f'{calibrated:.2f}',
        fine_tuned=f'{evaluate(het, judge):.2f}',
        cpu_seconds=f'{time.process_time() - started:.0f}',
    )
    append_row(args.out, row)
    print(row, flush=True)


def parse_args() -> argparse.Namespace:
    parser = parser_of(__doc__)
    parser.add_argument('--epochs', type=float, default=20)
    parser.add_argument('--rate', type=float, default=0.1, help='the highest learning rate')
    parser.add_argument('--distil-steps', type=int, default=0)
    parser.add_argument('--amp', action='store_true', help='bf16 autocast')
    parser.add_argument('--labels-only', action='store_true')
    parser.add_argument('--out', default=RESULTS / 'finetuning_cifar.csv')
    return parser.parse_args()


def main() -> None:
    torch.backends.cudnn.benchmark = True
    run_all(parse_args(), run)


if __name__ == '__main__':
    main()
