r"""The paper's CIFAR-10 table: networks, P and rivals, one row per training.

    python benchmarks/cifar10.py --data DIR --network vgg16 \
        --conv het gwc4 dwc --p 1 2 4 8 16 32 64 \
        --epochs 20 --seeds 0 1 2 --label-smoothing 0.1 --amp

DIR holds the official python batches, or mosaics (see cifar_data.py). P = 1
is the standard convolution. Rows go to benchmarks/results/cifar10.csv when
their training ends; those that are there are skipped. A training that was
stopped, however it was, goes on after its last whole epoch: its state is kept in
the user's cache folder, by what was trained and how. `python -m benchmarks.report`
draws what is there. --held-out judges on training images that are held out, to
choose a setting, and has a file of its own.
"""

import argparse
import re
import time
from pathlib import Path

import cifar_models
import torch
from cifar_data import DeviceLoader, load_split
from cifar_train import TrainingState, evaluate, save_atomically, train
from record import RESULTS, append_row, has_row
from torch import Tensor, nn

from mmdet_hetconv.layers.cost import CONVOLUTIONS, macs_per_pixel
from mmdet_hetconv.trace import hooked
from mmdet_hetconv.utils.private_folder import private_folder

HELD_OUT = 5000  # training images


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

    parts = (*CONVOLUTIONS, nn.Linear)
    layers: dict[str, nn.Module] = {}
    inside: set[nn.Module] = set()
    for name, module in model.named_modules():
        if isinstance(module, parts) and module not in inside:
            inside.update(module.modules())
            layers[name] = module

    def add(name: str, x: Tensor, y: Tensor) -> None:
        nonlocal macs
        module = layers[name]
        if isinstance(module, nn.Linear):
            macs += module.in_features * module.out_features
        else:
            macs += macs_per_pixel(module) * y.shape[-1] * y.shape[-2]

    weight = next(model.parameters())
    model.eval()
    with torch.no_grad(), hooked(layers, after=add):
        model(torch.zeros(1, 3, 32, 32, device=weight.device))
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
    state: Path | None = None,
) -> dict:
    """Train one network; its row of results.

    Args:
        args: what :func:`add_training_arguments` reads.
        splits: images and labels of 'train' and 'test'.
        epochs: passes over the training images.
        every: epochs from one evaluation to the next. The last is always
            evaluated.
        save: file for the trained weights.
        state: file from which a stopped training goes on.
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
    notes = dict(curves=curves, seconds=0.0)
    start = time.perf_counter()

    def after_epoch(epoch: int, running: float) -> None:
        nonlocal start
        now = time.perf_counter()
        notes['seconds'] += now - start
        start = now
        if epoch % every and epoch < epochs:
            return
        accuracy = evaluate(model, test, args.amp)
        for values, value in zip(notes['curves'].values(), (epoch, accuracy, running)):
            values.append(value)
        print(
            f'  epoch {epoch}: {accuracy:.2f} % (train {running:.2f} %), {notes["seconds"]:.0f} s',
            flush=True,
        )

    train(
        model,
        loader,
        epochs,
        args.lr,
        amp=args.amp,
        after_epoch=after_epoch,
        label_smoothing=args.label_smoothing,
        state=state and TrainingState(state, notes),
    )
    curves = notes['curves']
    if save is not None:
        save_atomically(model.state_dict(), save)
    return dict(
        **sizes,
        best=f'{max(curves["test"]):.2f}',
        final=f'{curves["test"][-1]:.2f}',
        train=f'{evaluate(model, seen, args.amp):.2f}',
        seconds=f'{notes["seconds"]:.1f}',
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
    parser.add_argument(
        '--label-smoothing', type=float, default=0, help='share spread over all classes'
    )


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
        label_smoothing=args.label_smoothing or '',
        seed=seed,
    )


def weights_file(folder: str | Path, setting: dict) -> Path:
    """Where the weights that a setting leads to are kept."""
    return Path(folder) / (
        '_'.join(str(value) for value in setting.values() if value != '') + '.pth'
    )


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
    parser.add_argument(
        '--held-out', action='store_true', help=f'judge on {HELD_OUT} training images'
    )
    parser.add_argument('--out', help='by default in benchmarks/results')
    args = parser.parse_args()
    name = 'cifar10_held_out.csv' if args.held_out else 'cifar10.csv'
    args.out = args.out or RESULTS / name
    return args


def main() -> None:
    args = parse_args()
    configs = conv_configs(args.conv, args.p)
    splits = {name: load_split(args.data, name) for name in ('train', 'test')}
    if args.held_out:
        images, labels = splits['train']
        splits['train'] = images[:-HELD_OUT], labels[:-HELD_OUT]
        splits['test'] = images[-HELD_OUT:], labels[-HELD_OUT:]
    states = private_folder('held_out' if args.held_out else 'cifar10')
    for seed in args.seeds:
        for conv, conv_cfg in configs.items():
            setting = setting_of(args, conv, seed)
            if has_row(args.out, setting):
                continue
            print(f'{conv}, seed {seed}', flush=True)
            save = args.save and weights_file(args.save, setting)
            state = weights_file(states, setting)
            result = run(args, splits, conv_cfg, seed, args.epochs, save=save, state=state)
            append_row(args.out, setting | result)
            state.unlink()


if __name__ == '__main__':
    main()
