"""The paper's CIFAR-10 table: networks, P and rivals, one row per training.

    python benchmarks/cifar10.py --data DIR --network vgg16 \
        --conv het --p 1 2 4 8 16 32 64 --epochs 30 --seeds 0 1 2 --amp
    python benchmarks/cifar10.py --data DIR --conv gwc4 dwc --epochs 30

DIR holds the official python batches, or mosaics (see cifar_data.py). P = 1
is the standard convolution. Rows go to benchmarks/results/cifar10.csv when
their training ends; those that are there are skipped, so a run that was
stopped goes on where it was.
"""

import argparse
import re
import time

import cifar_models
import torch
from cifar_data import DeviceLoader, load_split
from cifar_train import evaluate, train
from record import RESULTS, append_row, read_rows
from torch import nn

from mmdet_hetconv.layers.cost import CONVOLUTIONS, macs_per_pixel


def conv_configs(names: list[str], parts: list[int]) -> dict[str, dict | None]:
    """conv_cfg of every column of the table: 'het4', 'gwc4', 'dwc'."""
    configs: dict[str, dict | None] = {}
    for name in names:
        if name == 'het':
            for p in parts:
                key = f'het{p}' if p > 1 else 'dense'
                configs[key] = dict(type='HetConv', p=p) if p > 1 else None
        elif name == 'dense':
            configs['dense'] = None
        elif name == 'dwc':
            configs['dwc'] = dict(type='DepthPointwiseConv')
        elif match := re.fullmatch(r'gwc(\d+)', name):
            configs[name] = dict(
                type='GroupPointwiseConv', conv_groups=int(match[1])
            )
        else:
            raise SystemExit(
                f'--conv {name}: known are dense, het, dwc and gwcN'
            )
    return configs


def count(model: nn.Module) -> dict[str, int]:
    """MACs of one image and parameters, by closed forms per layer."""
    macs = 0

    def add(module: nn.Module, args: tuple, y: torch.Tensor) -> None:
        nonlocal macs
        if isinstance(module, nn.Linear):
            macs += module.in_features * module.out_features
        else:
            macs += macs_per_pixel(module) * y.shape[-1] * y.shape[-2]

    parts = (*CONVOLUTIONS, nn.Linear)
    inside: set[nn.Module] = set()
    handles = []
    for module in model.modules():
        if isinstance(module, parts) and module not in inside:
            inside.update(module.modules())
            handles.append(module.register_forward_hook(add))
    weight = next(model.parameters())
    model.eval()
    with torch.no_grad():
        model(torch.zeros(1, 3, 32, 32, device=weight.device))
    for handle in handles:
        handle.remove()
    parameters = sum(p.numel() for p in model.parameters())
    return dict(macs=macs, parameters=parameters)


def run(args, splits, device: str, key: str, conv_cfg, seed: int) -> dict:
    """Train one network; its row of results."""
    torch.manual_seed(seed)
    model = cifar_models.build(args.network, conv_cfg, width=args.width)
    model.to(device, memory_format=torch.channels_last)
    sizes = count(model)
    generator = torch.Generator().manual_seed(seed)
    loader = DeviceLoader(
        *splits['train'], args.batch_size, True, device, generator
    )
    test = DeviceLoader(*splits['test'], 500, False, device)
    seen = DeviceLoader(*splits['train'], 500, False, device)
    accuracies: list[float] = []
    start = time.perf_counter()

    def after_epoch(epoch: int, running: float) -> None:
        accuracies.append(evaluate(model, test, args.amp))
        print(
            f'{key} seed {seed} epoch {epoch}: {accuracies[-1]:.2f} % '
            f'(train {running:.2f} %), {time.perf_counter() - start:.0f} s',
            flush=True,
        )

    train(
        model,
        loader,
        args.epochs,
        args.lr,
        amp=args.amp,
        after_epoch=after_epoch,
    )
    seconds = time.perf_counter() - start
    return dict(
        **sizes,
        best=f'{max(accuracies):.2f}',
        final=f'{accuracies[-1]:.2f}',
        train=f'{evaluate(model, seen, args.amp):.2f}',
        seconds=f'{seconds:.1f}',
    )


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--data', required=True, metavar='DIR')
    parser.add_argument(
        '--network', choices=cifar_models.NETWORKS, default='vgg16'
    )
    parser.add_argument('--width', type=float, default=1.0)
    parser.add_argument('--conv', nargs='+', default=['het'])
    parser.add_argument(
        '--p', type=int, nargs='+', default=[1, 2, 4, 8, 16, 32, 64]
    )
    parser.add_argument('--epochs', type=int, default=30)
    parser.add_argument('--seeds', type=int, nargs='+', default=[0])
    parser.add_argument('--batch-size', type=int, default=128)
    parser.add_argument('--lr', type=float, default=0.1)
    parser.add_argument('--amp', action='store_true')
    parser.add_argument('--out', default=RESULTS / 'cifar10.csv')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    splits = {name: load_split(args.data, name) for name in ('train', 'test')}
    for seed in args.seeds:
        for key, conv_cfg in conv_configs(args.conv, args.p).items():
            setting = dict(
                network=args.network,
                width=args.width,
                conv=key,
                epochs=args.epochs,
                batch_size=args.batch_size,
                lr=args.lr,
                amp=args.amp,
                seed=seed,
            )
            done = read_rows(args.out)
            if any(
                all(row[k] == str(v) for k, v in setting.items())
                for row in done
            ):
                continue
            result = run(args, splits, device, key, conv_cfg, seed)
            append_row(args.out, setting | result)


if __name__ == '__main__':
    main()
