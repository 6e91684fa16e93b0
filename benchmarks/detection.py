"""Does a detector keep its mAP? Dense, HetConv and its rivals, same schedule.

    python benchmarks/detection.py --data-root DIR --detector faster_rcnn_r50 \
        --epochs 60 --seeds 0 1 --convert 4

trains every convolution of --conv from scratch on a data set in COCO or VOC
layout and appends a row per run to benchmarks/results/detection.csv. With
--convert the dense detector of each seed is also converted at these P, in
--ways, and every result is trained on for --tuned-epochs, and so is the dense
one. For a processor core:

    OMP_NUM_THREADS=1 python benchmarks/detection.py --data-root DIR \
        --detector faster_rcnn_r18 --reduced --image 320 240 --workers 0

Rows that are there are not made again, a training that was stopped goes on
from its last epoch, and dense is trained once, whatever is chosen for the
others by --where and --lr-by-density.

Last it times them, once for all trainings of the same networks: a row of
detection_latency.csv has backbone, neck and dense head of one image after
switch_to_deploy (dense: folded norms, fastest kernel), all convolutions in
turns; on one CPU thread it is processor time. Delete these rows and repeat
the command where other programs ran beside it.
"""

import argparse
import re
from pathlib import Path

import torch
from cifar10 import conv_configs
from detection_configs import DETECTORS, WHERE, Setting
from detection_measures import latencies, metric_columns
from mmdet.utils import register_all_modules
from mmengine.config import Config
from record import RESULTS, append_row, has_row

from mmdet_hetconv.analysis.config import build_detector, count_config, input_shape
from mmdet_hetconv.comfort.training import run as running
from mmdet_hetconv.utils.errors import one_sentence
from mmdet_hetconv.utils.machine import machine
from mmdet_hetconv.workflow import conversion
from mmdet_hetconv.workflow.calibration_images import Images
from mmdet_hetconv.workflow.checkpoints import checkpoint
from mmdet_hetconv.workflow.evaluation import evaluate

RATES = dict(faster_rcnn_r18=1e-3, faster_rcnn_r50=5e-4, ssd300=3e-4)
TUNED_SHARE = 0.1  # of the schedule, for a converted detector
# How a converted detector starts: options of tools/convert_checkpoint.py.
WAYS = dict(
    projected=dict(permute=False, distil=None),
    calibrated=dict(permute=False, distil=None),
    permuted=dict(permute=True, distil=None),
    distilled=dict(permute=False, distil=dict(steps=300)),
    distilled_longer=dict(permute=False, distil=dict(steps=1500)),
    distilled_longest=dict(permute=False, distil=dict(steps=4000)),
)
# With TeacherHook, as in the config that tools/slim.py writes. Rows that are only
# called taught had weight 1 and batch norms of each batch.
TAUGHT = ', taught at weight 10, norms kept'
TEACHER = dict(type='TeacherHook', weight=10, norm_eval=True)
CALIBRATED = [way for way in WAYS if way != 'projected']


class Experiment:
    """One detector on one data set: trainings, conversions, times, rows."""

    def __init__(self, args: argparse.Namespace):
        self.args = args
        self.data = Path(args.data_root).resolve().name
        self.convs = conv_configs(args.conv, args.p)
        self.rate = args.lr or RATES[args.detector]
        self.setting = Setting(
            args.detector,
            args.data_root,
            args.where,
            args.reduced,
            args.image and tuple(args.image),
            args.batch_size,
            args.workers,
            args.lr_by_density,
        )
        parts = (args.detector, self.data, *(args.image or ()))
        name = '_'.join(map(str, (*parts, 'reduced' * args.reduced)))
        name += f'_b{args.batch_size}_e{args.epochs}_lr{self.rate:g}'
        self.work = Path(args.work_dir) / re.sub(r'\W', '_', name)
        self.work.mkdir(parents=True, exist_ok=True)

    def name(self, key: str, *parts) -> str:
        """Of a run's files; dense is the same whatever is chosen."""
        if key != 'dense':
            parts = (*['density'] * self.args.lr_by_density, *parts)
            parts = (self.args.where, *parts)
        return '_'.join(map(str, (key, *parts)))

    def config(self, key: str, seed: int, **kwargs) -> Config:
        """Of the training from scratch, unless kwargs say otherwise."""
        kwargs = dict(epochs=self.args.epochs, rate=self.rate) | kwargs
        return self.setting.config(self.convs[key], seed=seed, **kwargs)

    def write(self, name: str, cfg: Config) -> str:
        """The config as a file, as the tools want it."""
        path = self.work / f'{name}.py'
        cfg.dump(path)
        return str(path)

    def train(self, name: str, cfg: Config) -> Path:
        """The last checkpoint of a training, new, resumed or finished."""
        folder = self.work / name
        last = folder / f'epoch_{cfg.train_cfg.max_epochs}.pth'
        if not checkpoint.is_complete(last):
            running.train(
                self.write(name, cfg), work_dir=str(folder), resume='auto', amp=self.args.amp
            )
        return last

    def network(self, key: str) -> dict:
        """The columns that tell one network from another."""
        args = self.args
        return dict(
            detector=args.detector,
            data=self.data,
            network='reduced' if args.reduced else 'full size',
            image='x'.join(map(str, args.image)) if args.image else 'config',
            where=args.where,
            conv=key,
            p=(self.convs[key] or dict(p=1)).get('p', ''),
        )

    def identity(self, key: str, start: str, seed: int, tuned: int) -> dict:
        """The columns that tell one run from another.

        lr is the peak of the schedule from scratch, tuned_lr that of the
        epochs that follow.
        """
        args = self.args
        return dict(
            **self.network(key),
            start=start,
            seed=seed,
            epochs=args.epochs,
            batch_size=args.batch_size,
            lr=self.rate,
            lr_by_density=args.lr_by_density,
            amp=args.amp,
            calib=args.calib if start in CALIBRATED else '',
            tuned_epochs=tuned,
            tuned_lr=float(f'{self.rate * args.tuning_rate:g}') if tuned else '',
        )

    def record(self, row: dict, cfg: Config, path: Path) -> None:
        """Evaluate a checkpoint and append its row."""
        content = checkpoint.read_checkpoint(path)
        device = 'cuda' if torch.cuda.is_available() else 'cpu'
        model = build_detector(cfg.model).to(device)
        checkpoint.load_weights(model, content, path)
        metrics = evaluate(cfg, model)
        shape = input_shape(cfg)
        costs = count_config(cfg.model, shape)
        scalars = content.get('message_hub', {}).get('log_scalars', {})
        seconds = 0.0
        if 'train/time' in scalars:  # of each iteration, kept on resuming
            seconds = scalars['train/time'].data[0].sum()
        row = row | dict(
            macs=costs.total('macs'),
            parameters=costs.total('parameters'),
            **metric_columns(metrics),
            train_seconds=f'{seconds:.0f}',
        )
        append_row(self.args.out, row)
        print(row, flush=True)

    def scratch(self, key: str, seed: int) -> None:
        """One convolution, trained from scratch."""
        row = self.identity(key, 'scratch', seed, 0)
        if not has_row(self.args.out, row):
            cfg = self.config(key, seed)
            self.record(row, cfg, self.train(self.name(key, seed), cfg))

    def tune(self, key: str, start: str, seed: int, path: Path, taught: bool = False) -> None:
        """The epochs that follow on a checkpoint, by default a tenth of the schedule.

        Args:
            taught: with the dense detector of this seed as teacher.
        """
        tuned = self.args.tuned_epochs or max(1, round(TUNED_SHARE * self.args.epochs))
        row = self.identity(key, start + TAUGHT * taught, seed, tuned)
        if not has_row(self.args.out, row):
            cfg = self.config(key, seed, epochs=tuned, rate=row['tuned_lr'], load_from=str(path))
            if taught:
                dense = self.config('dense', seed)
                name = self.name('dense', seed)
                weights = str(self.train(name, dense))
                hook = dict(TEACHER, config=self.write(name, dense), checkpoint=weights)
                cfg.custom_hooks = [hook]
            name = self.name(key, start, *['taught'] * taught, seed)
            self.record(row, cfg, self.train(name, cfg))

    def convert(self, key: str, way: str, seed: int) -> Path:
        """The dense detector's weights in heterogeneous form."""
        out = self.work / f'{self.name(key, way, seed)}.pth'
        if not checkpoint.is_complete(out):
            dense, het = self.config('dense', seed), self.config(key, seed)
            name = self.name('dense', seed)
            conversion.convert(
                self.write(name, dense),
                str(self.train(name, dense)),
                self.write(self.name(key, seed), het),
                out,
                images=Images(self.args.calib, seed=seed) if way in CALIBRATED else None,
                evaluates=False,
                **WAYS[way],
            )
        return out

    def converted(self, key: str, seed: int) -> None:
        """All ways of conversion, before and after fine-tuning."""
        for way in self.args.ways:
            path = self.convert(key, way, seed)
            row = self.identity(key, way, seed, 0)
            if not has_row(self.args.out, row):
                self.record(row, self.config(key, seed), path)
            self.tune(key, way, seed, path)
            if WAYS[way]['distil']:
                self.tune(key, way, seed, path, taught=True)

    def time(self) -> None:
        """Milliseconds of all convolutions, where a row of one is missing."""
        out = Path(self.args.out)
        out = out.with_name(f'{out.stem}_latency.csv')
        here = dict(machine=machine()['machine'])
        rows = {key: self.network(key) for key in self.convs}
        missing = [key for key, row in rows.items() if not has_row(out, row | here)]
        if missing:
            configs = {key: self.config(key, 0) for key in self.convs}
            times = latencies(configs, self.args.rounds)
            for key in missing:
                row = rows[key] | dict(latency_ms=f'{times[key]:.2f}')
                append_row(out, row)
                print(row, flush=True)

    def run(self) -> None:
        for seed in self.args.seeds:
            for key in self.convs:
                self.scratch(key, seed)
            for p in self.args.convert:
                self.converted(f'het{p}', seed)
            if self.args.convert:
                dense = self.config('dense', seed)
                path = self.train(self.name('dense', seed), dense)
                self.tune('dense', 'dense', seed, path)
        self.time()


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--data-root', required=True, metavar='DIR')
    parser.add_argument('--detector', choices=DETECTORS, default='faster_rcnn_r18')
    parser.add_argument('--conv', nargs='+', default=['dense', 'het', 'gwc4', 'dwc'])
    parser.add_argument('--p', type=int, nargs='+', default=[4, 8])
    parser.add_argument(
        '--where',
        choices=WHERE,
        default='full',
        help='convolutions to exchange; full: backbone, neck and dense head',
    )
    parser.add_argument(
        '--convert',
        type=int,
        nargs='*',
        default=[],
        metavar='P',
        help='convert the dense detector too; needs dense and these P',
    )
    parser.add_argument('--ways', nargs='+', choices=WAYS, default=list(WAYS)[:4])
    parser.add_argument('--tuned-epochs', type=int, help='default: a tenth of --epochs')
    parser.add_argument(
        '--tuning-rate', type=float, default=0.3, help='peak of these epochs, as a share of --lr'
    )
    parser.add_argument('--calib', type=int, default=64, help='images')
    parser.add_argument('--epochs', type=int, default=60)
    parser.add_argument('--seeds', type=int, nargs='+', default=[0])
    parser.add_argument('--batch-size', type=int, default=8)
    parser.add_argument('--lr', type=float, help='peak of AdamW')
    parser.add_argument(
        '--lr-by-density',
        action='store_true',
        help='HetConv learns faster: HetConvOptimWrapperConstructor',
    )
    parser.add_argument(
        '--image',
        type=int,
        nargs=2,
        metavar=('W', 'H'),
        help="images are made to fit into it; default: the config's size",
    )
    parser.add_argument(
        '--reduced',
        action='store_true',
        help='half the channels, a quarter in neck and heads, fewer RoIs; SSD300 on a ResNet-18',
    )
    parser.add_argument('--amp', action='store_true')
    parser.add_argument('--workers', type=int, default=4)
    parser.add_argument('--rounds', type=int, default=15, help='of timing')
    parser.add_argument('--work-dir', default='work_dirs/detection')
    parser.add_argument('--out', default=RESULTS / 'detection.csv')
    args = parser.parse_args()
    known = conv_configs(args.conv, args.p)
    missing = {f'het{p}' for p in args.convert}.difference(known)
    if missing or (args.convert and 'dense' not in known):
        parser.error('--convert needs --conv dense het and its P in --p')
    return args


def main() -> None:
    register_all_modules(init_default_scope=True)
    with one_sentence('detection.py'):
        Experiment(parse_args()).run()


if __name__ == '__main__':
    main()
