"""Time and peak memory of converting ResNet-50 and VGG-16 at 224 x 224.

    python benchmarks/conversion_cost.py --network resnet50 --images 256
    python benchmarks/conversion_cost.py --network vgg16 --images 256

Weights and images are random: the work does not depend on them. One network
per process, since the peak is the process's. Appends a row to
benchmarks/results/conversion_cost.csv.
"""

import argparse
import resource
import time

import cifar_models
import torch
from mmdet.models.backbones import ResNet
from record import RESULTS, append_row
from torch import nn

from mmdet_hetconv.convert import calibrate, rearrange
from mmdet_hetconv.convert.calibration.calibrate import call


def build(network: str, conv_cfg: dict | None) -> nn.Module:
    if network == 'resnet50':
        return ResNet(50, conv_cfg=conv_cfg)
    return cifar_models.build(network, conv_cfg)[:-5]  # without its head


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--network', choices=['resnet50', 'vgg16'], required=True)
    parser.add_argument('--p', type=int, default=4)
    parser.add_argument('--images', type=int, default=256)
    parser.add_argument('--batch-size', type=int, default=8)
    parser.add_argument('--permute', action='store_true')
    parser.add_argument('--out', default=RESULTS / 'conversion_cost.csv')
    args = parser.parse_args()

    torch.manual_seed(0)
    dense = build(args.network, None)
    het = build(args.network, dict(type='HetConv', p=args.p))
    images = torch.randn(args.images, 3, 28, 28)
    images = nn.functional.interpolate(images, (224, 224), mode='bilinear')
    batches = images.split(args.batch_size)
    start, cpu = time.perf_counter(), time.process_time()
    if args.permute:
        rearrange(dense, het, batches[:4], call)
    fits = calibrate(dense, het, batches, show_progress=True)
    seconds = time.perf_counter() - start
    cpu = time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    row = dict(
        network=args.network,
        p=args.p,
        images=args.images,
        permuted=args.permute,
        layers=len(fits),
        seconds=f'{seconds:.0f}',
        cpu_seconds=f'{cpu:.0f}',
        peak_gib=f'{peak:.2f}',
    )
    append_row(args.out, row)
    print(row)


if __name__ == '__main__':
    main()
