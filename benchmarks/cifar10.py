r"""The paper's CIFAR-10 table: networks, P and rivals, one row per training.

    python benchmarks/cifar10.py --data DIR --network vgg16 \
        --conv het gwc4 dwc --p 1 2 4 8 16 32 64 \
        --epochs 30 --seeds 0 1 2 --amp

DIR holds the official python batches, or mosaics (see cifar_data.py). P = 1
is the standard convolution. Rows go to benchmarks/results/cifar10.csv when
their training ends; those that are there are skipped, so a run that was
stopped goes on where it was. `python -m benchmarks.report` draws what is
there.
"""

import argparse
import re
import time
from pathlib import Path

import cifar_models
import torch
from cifar_data import DeviceLoader, load_split
from cifar_train import evaluate, save_weights, train
from record import RESULTS, append_row, has_row
from torch import Tensor, nn

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
            configs[name] = dict(type='GroupPointwiseConv', conv_groups=int(match[1]))
        else:
            raise SystemExit(f'--conv {name}: known are dense, het, dwc and gwcN')
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


def run(
    args: argparse.Namespace,
    splits: dict[str, tuple[Tensor, Tensor]],
    conv_cfg: dict | None,
    seed: int,
    epochs: float,
    every: int = 1,
    save: Path | None = None,
) -> dict:
    """Train one network; its row of results.

    Args:
        args: what :func:`add_training_arguments` reads.
        splits: images and labels of 'train' and 'test'.
        epochs: passes over the training images.
        every: epochs from one evaluation to the next. The last is always
            evaluated.
        save: file for the trained weights.
    """
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    torch.backends.cudnn.benchmark = True  # all batches have one shape
    torch.manual_seed(seed)
    model = cifar_models.build(args.network, conv_cfg, width=args.width)
    model.to(device, memory_format=torch.channels_last)
    sizes = count(model)
    generator = torch.Generator().manual_seed(seed)
    loader = DeviceLoader(*splits['train'], args.batch_size, True, device, generator)
    test = DeviceLoader(*splits['test'], 500, False, device)
    seen = DeviceLoader(*splits['train'], 500, False, device)
    curves: dict[str, list[float]] = dict(epoch=[], test=[], train=[])
    start = time.perf_counter()

    def after_epoch(epoch: int, running: float) -> None:
        if epoch % every and epoch < epochs:
            return
        accuracy = evaluate(model, test, args.amp)
        for key, value in zip(curves, (epoch, accuracy, running)):
            curves[key].append(value)
        print(
            f'  epoch {epoch}: {accuracy:.2f} % (train {running:.2f} %), '
            f'{time.perf_counter() - start:.0f} s',
            flush=True,
        )

    train(model, loader, epochs, args.lr, amp=args.amp, after_epoch=after_epoch)
    seconds = time.perf_counter() - start
    if save is not None:
        save_weights(model, save)
    return dict(
        **sizes,
        best=f'{max(curves["test"]):.2f}',
        final=f'{curves["test"][-1]:.2f}',
        train=f'{evaluate(model, seen, args.amp):.2f}',
        seconds=f'{seconds:.1f}',
        curve_epoch=' '.join(f'{value:d}' for value in curves['epoch']),
        curve_test=' '.join(f'{value:.2f}' for value in curves['test']),
        curve_train=' '.join(f'{value:.2f}' for value in curves['train']),
    )


def add_training_arguments(parser: argparse.ArgumentParser) -> None:
    """What every script that trains on CIFAR-10 asks for."""
    parser.add_argument(
        '--data',
        required=True,
        metavar='DIR',
        help='official python batches, or mosaics (cifar_data.py)',
    )
    parser.add_argument('--network', choices=cifar_models.NETWORKS, default='vgg16')
    parser.add_argument('--width', type=float, default=1.0, help='factor of the channels')
    parser.add_argument('--batch-size', type=int, default=128)
    parser.add_argument('--lr', type=float, default=0.1, help='peak learning rate')
    parser.add_argument('--amp', action='store_true', help='bf16 autocast')


def add_table_arguments(parser: argparse.ArgumentParser) -> None:
    """Which networks, and how often each is trained."""
    parser.add_argument(
        '--conv', nargs='+', default=['het'], help='dense, het, dwc, gwcN with N groups'
    )
    parser.add_argument(
        '--p',
        type=int,
        nargs='+',
        default=[1, 2, 4, 8, 16, 32, 64],
        help='parts of het, 1 is dense; cut to what a layer allows',
    )
    parser.add_argument('--seeds', type=int, nargs='+', default=[0])


def setting_of(args: argparse.Namespace, conv: str, seed: int) -> dict:
    """The columns that say what was trained, and how."""
    return dict(
        network=args.network,
        width=args.width,
        conv=conv,
        epochs=args.epochs,
        batch_size=args.batch_size,
        lr=args.lr,
        amp=args.amp,
        seed=seed,
    )


def weights_file(folder: str | Path, setting: dict) -> Path:
    """Where the weights that a setting leads to are kept."""
    return Path(folder) / ('_'.join(map(str, setting.values())) + '.pth')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_training_arguments(parser)
    add_table_arguments(parser)
    parser.add_argument('--epochs', type=int, default=30)
    parser.add_argument(
        '--save', metavar='DIR', help='keep the trained weights, for conversion_cifar.py --work-dir'
    )
    parser.add_argument('--out', default=RESULTS / 'cifar10.csv')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    configs = conv_configs(args.conv, args.p)
    splits = {name: load_split(args.data, name) for name in ('train', 'test')}
    for seed in args.seeds:
        for conv, conv_cfg in configs.items():
            setting = setting_of(args, conv, seed)
            if has_row(args.out, setting):
                continue
            print(f'{conv}, seed {seed}', flush=True)
            save = args.save and weights_file(args.save, setting)
            result = run(args, splits, conv_cfg, seed, args.epochs, save=save)
            append_row(args.out, setting | result)


if __name__ == '__main__':
    main()
