"""How feature maps correlate, and what that makes of point-wise stand-ins.

    python benchmarks/conversion_correlation.py --data DIR --photos DIR \
        --checkpoint work_dirs/conversion_cifar/vgg16_0.25_4_0.pth --width 0.25

runs a network that benchmarks/conversion_cifar.py trained on CIFAR-10 images
and on photos, and writes a row per layer and source of images to
benchmarks/results/conversion_correlation.csv: how neighbours correlate, and
the relative error of the layer's output if all its kernels become point-wise
(centre tap; sum of taps; data-free, that is functional.pointwise_approximation).
Errors are as they are (raw) and with the means made equal (centred).
"""

import argparse
from pathlib import Path

import cifar_models
import cv2
import torch
import torch.nn.functional as F
from cifar_data import MEAN, STD, DeviceLoader, load_split
from record import RESULTS, append_row
from torch import Tensor, nn

from mmdet_hetconv.layers import pointwise_approximation

PHOTO_SIZE = (192, 144)
CORRELATIONS = (0.6, 0.7, 0.8, 0.9)


def read_photos(folder: str, count: int) -> Tensor:
    """The first photos of a folder, normalised as the network's images."""
    paths = sorted(Path(folder).rglob('*.jpg'))[:count]
    if not paths:
        raise SystemExit(f'--photos {folder} has no .jpg files')
    mean, std = torch.tensor(MEAN) * 255, torch.tensor(STD) * 255
    images = []
    for path in paths:
        photo = cv2.imread(str(path))[..., ::-1]
        photo = cv2.resize(photo, PHOTO_SIZE, interpolation=cv2.INTER_AREA)
        pixels = (torch.from_numpy(photo).float() - mean) / std
        images.append(pixels.permute(2, 0, 1))
    return torch.stack(images)


def correlations(x: Tensor) -> dict[str, str]:
    """Of vertical, horizontal and diagonal neighbours, raw and centred."""
    row = {}
    centred = x - x.mean((0, 2, 3), keepdim=True)
    for name, z in (('raw', x), ('centred', centred)):
        power = z.square().mean()
        for way, (dy, dx) in dict(v=(1, 0), h=(0, 1), d=(1, 1)).items():
            height, width = z.shape[-2] - dy, z.shape[-1] - dx
            product = z[..., dy:, dx:] * z[..., :height, :width]
            row[f'{name}_{way}'] = f'{(product.mean() / power).item():.3f}'
    return row


def errors(x: Tensor, weight: Tensor) -> dict[str, str]:
    """Relative error of the output with every stand-in."""
    y = F.conv2d(x, weight)
    deviation = (y - y.mean((0, 2, 3), keepdim=True)).square().mean()
    stand_ins = dict(
        centre=pointwise_approximation(weight, 0), sum=pointwise_approximation(weight, 1)
    )
    for r in CORRELATIONS:
        stand_ins[f'r{r}'] = pointwise_approximation(weight, r)
    row = {}
    for name, point in stand_ins.items():
        off = F.conv2d(x[..., 1:-1, 1:-1], point) - y
        centred = off - off.mean((0, 2, 3), keepdim=True)
        for kind, values in (('raw', off), ('centred', centred)):
            error = (values.square().mean() / deviation).sqrt().item()
            row[f'{name}_{kind}'] = f'{error:.3f}'
    return row


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--data', required=True, metavar='DIR')
    parser.add_argument('--photos', required=True, metavar='DIR')
    parser.add_argument('--checkpoint', required=True)
    parser.add_argument('--network', default='vgg16')
    parser.add_argument('--width', type=float, default=1.0)
    parser.add_argument('--images', type=int, default=100)
    parser.add_argument('--out', default=RESULTS / 'conversion_correlation.csv')
    args = parser.parse_args()

    model = cifar_models.build(args.network, width=args.width).eval()
    model.load_state_dict(torch.load(args.checkpoint, weights_only=True))
    images, labels = load_split(args.data, 'test')
    loader = DeviceLoader(images[: args.images], labels[: args.images], args.images, False)
    sources = dict(
        cifar=next(iter(loader))[0], photos=read_photos(args.photos, max(1, args.images // 10))
    )
    # Without the head, which wants CIFAR's size.
    body = nn.Sequential(*(m for m in model if not isinstance(m, nn.Linear)))
    for source, x in sources.items():
        for number, module in enumerate(body):
            if isinstance(module, nn.Flatten):
                break
            small = min(x.shape[-2:]) < 4
            if isinstance(module, nn.Conv2d) and not small:
                row = dict(
                    network=args.network,
                    width=args.width,
                    source=source,
                    layer=number,
                    height=x.shape[-2],
                )
                with torch.no_grad():
                    row |= correlations(x) | errors(x, module.weight)
                append_row(args.out, row)
                print(row)
            with torch.no_grad():
                # A copy: activations work in place.
                x = module(x.clone())


if __name__ == '__main__':
    main()
