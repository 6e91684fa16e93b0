r"""Dense to HetConv on CIFAR-10: accuracy by conversion, P and fine-tuning.

    python benchmarks/conversion_cifar.py --data DIR --width 0.25 \
        --epochs 8 --p 2 4 8 16 --fine-tune 0 1 5

trains the dense network, converts it in five ways, fine-tunes each, and
appends a row per result to benchmarks/results/conversion_cifar.csv. Results
that are there already are not made again: a run that was stopped goes on
where it was. The dense network is kept in --work-dir. `cifar10.py --save DIR`
trains the same one, so `--work-dir DIR` takes it from there.

    ... --layers 3=2 7=2 10=2 14=2 17=4 20=4 24=8 27=8 30=8 34=8 37=8 40=8

gives every layer a P of its own, and

    ... --one-by-one --p 4

converts one layer at a time, the others being dense: which of them lose?
"""

import argparse
import copy
import time

import cifar_models
import torch
from cifar10 import add_training_arguments, count, setting_of, weights_file
from cifar_data import DeviceLoader, load_split
from cifar_train import evaluate, save_atomically, train
from record import RESULTS, append_row, has_row
from torch import nn

from mmdet_hetconv.convert import calibrate, load_projected, move_norms, rearrange
from mmdet_hetconv.convert.calibration.calibrate import call
from mmdet_hetconv.layers import HetConv2d, take_foreign
from mmdet_hetconv.layers.replace import replace_convs

CALIBRATION_BATCH = 64
WAYS = ('centre tap', 'data-free', 'data-free, norms', 'calibrated')
WAYS += ('calibrated, permuted',)


def centre_taps(dense: nn.Module, het: nn.Module) -> None:
    """Own blocks keep their kernels, foreign ones only the centre tap."""
    with torch.no_grad():
        for name, layer in het.named_modules():
            if isinstance(layer, HetConv2d):
                weight = dense.get_submodule(name).weight
                middle = weight[..., 1:2, 1:2]
                layer.pointwise.weight.copy_(take_foreign(middle, layer.p))


def convert(way: str, dense: nn.Module, het: nn.Module, batches: list) -> float:
    """Fill `het` in one of WAYS; the seconds it took."""
    dense = copy.deepcopy(dense)  # a permutation changes it
    start = time.perf_counter()
    if way == 'calibrated, permuted':
        rearrange(dense, het, batches[:8], call)
    if way.startswith('calibrated'):
        fits = calibrate(dense, het, batches)
        for name, fit in fits.items():
            print(f'  {name:>4} {fit.before:.3f} {fit.after:.3f} {fit.ridge}')
    else:
        load_projected(dense, het)
        if way == 'centre tap':
            centre_taps(dense, het)
        if way.endswith('norms'):
            move_norms(dense, het, batches)
    return time.perf_counter() - start


class Experiment:
    """The dense network, the data, and the rows that are there."""

    def __init__(self, args: argparse.Namespace):
        self.args = args
        self.device = 'cuda' if torch.cuda.is_available() else 'cpu'
        self.train_split = load_split(args.data, 'train')
        self.test = DeviceLoader(*load_split(args.data, 'test'), 500, False, self.device)
        images = self.train_split[0][: args.calib]
        labels = self.train_split[1][: args.calib]
        calibration = DeviceLoader(images, labels, CALIBRATION_BATCH, False, self.device)
        self.batches = [batch for batch, _ in calibration]
        self.setting = dict(
            network=args.network,
            width=args.width,
            dense_epochs=args.epochs,
            batch_size=args.batch_size,
            lr=args.lr,
            amp=args.amp,
            label_smoothing=args.label_smoothing or '',
            calibration_images=args.calib,
            seed=args.seed,
        )

    def build(self) -> nn.Module:
        """The dense network, untrained."""
        torch.manual_seed(self.args.seed)
        model = cifar_models.build(self.args.network, width=self.args.width)
        model.to(self.device, memory_format=torch.channels_last)
        return model

    def fit(self, model: nn.Module, epochs: int, rate: float) -> None:
        generator = torch.Generator().manual_seed(self.args.seed)
        loader = DeviceLoader(*self.train_split, self.args.batch_size, True, self.device, generator)
        start = time.perf_counter()
        train(
            model,
            loader,
            epochs,
            rate,
            amp=self.args.amp,
            label_smoothing=self.args.label_smoothing,
            after_epoch=lambda epoch, seen: print(
                f'  epoch {epoch}: {seen:.2f} % seen, {time.perf_counter() - start:.0f} s',
                flush=True,
            ),
        )

    def het(self, parts: dict[str, int]) -> nn.Module:
        """The network with HetConv layers, each with a part of its own."""
        model = self.build()

        def choose(name: str, conv: nn.Conv2d) -> dict | str:
            p = parts.get(name, 1)
            return dict(type='HetConv', p=p) if p > 1 else 'dense'

        replace_convs(model, choose)
        return model

    def plans(self) -> dict[str, dict[str, int]]:
        """Parts of the layers, by what column p says."""
        args = self.args
        names = [
            name
            for name, module in self.build().named_modules()
            if isinstance(module, nn.Conv2d) and module.in_channels > 3
        ]
        if args.layers:
            parts = dict(word.split('=') for word in args.layers)
            parts = {name: int(p) for name, p in parts.items()}
            return {' '.join(args.layers): parts}
        if args.one_by_one:
            return {f'{name}={p}': {name: p} for p in args.p for name in names}
        return {str(p): dict.fromkeys(names, p) for p in args.p}

    def identity(self, way: str, p: str, tuned: int) -> dict:
        """The columns that tell one result from another."""
        is_tuned = tuned and way != 'scratch'
        return dict(
            self.setting,
            way=way,
            p=p,
            tuned_epochs=tuned,
            tuning_lr=self.args.tuning_lr if is_tuned else '',
        )

    def is_done(self, way: str, p: str, tuned: int) -> bool:
        return has_row(self.args.out, self.identity(way, p, tuned))

    def record(self, way, p, tuned, model, seconds) -> None:
        accuracy = evaluate(model, self.test, self.args.amp)
        macs = count(model)['macs']
        row = dict(
            self.identity(way, p, tuned),
            macs=macs,
            accuracy=f'{accuracy:.2f}',
            seconds=f'{seconds:.1f}',
        )
        append_row(self.args.out, row)
        print(f'{way}, P={p}, {tuned} epochs: {accuracy:.2f} %', flush=True)

    def dense(self) -> nn.Module:
        """The dense network, trained once and kept."""
        args = self.args
        setting = setting_of(args, 'dense', args.seed)
        path = weights_file(args.work_dir, setting)
        model = self.build()
        if path.exists():
            model.load_state_dict(torch.load(path, weights_only=True))
        else:
            self.fit(model, args.epochs, args.lr)
            save_atomically(model.state_dict(), path)
        return model.eval()

    def tuned(self, way: str, p: str, model: nn.Module, seconds: float):
        """Rows of a converted model after each of --fine-tune epochs."""
        for tuned in self.args.fine_tune:
            if self.is_done(way, p, tuned):
                continue
            again = copy.deepcopy(model)
            if tuned:
                self.fit(again, tuned, self.args.tuning_lr)
            self.record(way, p, tuned, again, seconds)

    def run(self) -> None:
        args = self.args
        dense = self.dense()
        self.tuned('dense', '1', dense, 0.0)
        for p, parts in self.plans().items():
            for way in args.ways:
                if all(self.is_done(way, p, t) for t in args.fine_tune):
                    continue
                het = self.het(parts)
                seconds = convert(way, dense, het, self.batches)
                self.tuned(way, p, het, seconds)
            total = args.epochs + max(args.fine_tune)
            if args.scratch and not self.is_done('scratch', p, total):
                het = self.het(parts)
                for layer in het.modules():
                    if isinstance(layer, HetConv2d):
                        layer.reset_parameters()
                self.fit(het, total, args.lr)
                self.record('scratch', p, total, het, 0.0)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_training_arguments(parser)
    parser.add_argument('--epochs', type=int, default=30)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--p', type=int, nargs='+', default=[2, 4, 8, 16])
    parser.add_argument('--layers', nargs='+', metavar='NAME=P')
    parser.add_argument('--one-by-one', action='store_true')
    parser.add_argument('--ways', nargs='+', choices=WAYS, default=WAYS)
    parser.add_argument('--fine-tune', type=int, nargs='+', default=[0, 1, 5])
    parser.add_argument(
        '--tuning-lr', type=float, default=0.01, help='peak learning rate of fine-tuning'
    )
    parser.add_argument('--calib', type=int, default=1024, metavar='N')
    parser.add_argument(
        '--scratch',
        action='store_true',
        help='train HetConv from scratch too, with the same total of epochs',
    )
    parser.add_argument('--work-dir', default='work_dirs/conversion_cifar')
    parser.add_argument('--out', default=RESULTS / 'conversion_cifar.csv')
    return parser.parse_args()


def main() -> None:
    Experiment(parse_args()).run()


if __name__ == '__main__':
    main()
