#!/usr/bin/env python
"""Time whole detectors, dense and HetConv in turns, trained and deployed.

examples:
  python tools/benchmark.py configs/faster_rcnn_het_r50_full.py
  python tools/benchmark.py configs/ssd300_het_vgg16_full.py --precision fp32 bf16 int8 \\
      --backend torch onnxruntime openvino
"""

import argparse
import time
import warnings
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path

warnings.filterwarnings('ignore', 'pkg_resources is deprecated')  # mmengine's, at its import

import torch
from mmdet.utils import register_all_modules

from mmdet_hetconv.analysis.latency import HEAD, benchmark_config, plot, write_csv
from mmdet_hetconv.deploy import keep_freed_memory
from mmdet_hetconv.deploy.precision import PRECISIONS, check_precision
from mmdet_hetconv.export.runtimes import BACKENDS, check_backend
from mmdet_hetconv.utils.arguments import add_shape, tool_parser
from mmdet_hetconv.utils.errors import UserError, one_sentence
from mmdet_hetconv.utils.files import check_writable_file
from mmdet_hetconv.utils.table import format_table
from mmdet_hetconv.workflow.config.configs import read_config


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = tool_parser('benchmark.py', __doc__)
    parser.add_argument('configs', nargs='+', help='configs with HetConv')
    parser.add_argument('--batch', type=int, nargs='+', default=[1], help='images at once')
    add_shape(parser)
    parser.add_argument('--rounds', type=int, default=15, help='runs of each form, in turns')
    parser.add_argument('--device', default='cpu', help='cpu or cuda')
    parser.add_argument(
        '--whole',
        action='store_true',
        help='with decoding, NMS and RoI head; default: backbone, neck and dense head',
    )
    parser.add_argument(
        '--precision',
        nargs='+',
        choices=PRECISIONS,
        default=['fp32'],
        help='of the deployed forms (default: fp32)',
    )
    parser.add_argument(
        '--backend',
        nargs='+',
        choices=('torch', *BACKENDS),
        default=['torch'],
        help='what else is timed beside torch, without --whole, in those of the '
        'precisions that it has',
    )
    parser.add_argument(
        '--cpu-time',
        action='store_true',
        help='processor time of one thread: for a machine that is not idle',
    )
    parser.add_argument(
        '--out', metavar='FILE', default='work_dirs/benchmark', help='write FILE.csv and FILE.png'
    )
    args = parser.parse_args(argv)
    if args.rounds < 2:
        parser.error(f'--rounds {args.rounds}: a spread needs two at least')
    args.backend = [name for name in args.backend if name != 'torch']  # it always runs
    if args.backend and args.whole:
        parser.error('--backend: others than torch run backbone, neck and dense head only')
    if min(args.batch + (args.shape or [])) < 1:
        parser.error('--batch and --shape take numbers above 0')
    return args


def _check_machine(args: argparse.Namespace) -> None:
    """Raise UserError for what the machine does not have."""
    try:
        for precision in args.precision:
            check_precision(precision, torch.device(args.device))
        for name in args.backend:
            for precision in set(args.precision) & set(BACKENDS[name]):
                check_backend(name, precision)
    except ValueError as error:
        raise UserError(str(error)) from error


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    register_all_modules(init_default_scope=True)
    clock = time.perf_counter
    if args.cpu_time:
        torch.set_num_threads(1)
        clock = time.thread_time
    if args.device == 'cpu':
        keep_freed_memory()
    files = [Path(f'{args.out}{ending}') for ending in ('.csv', '.png')]
    with one_sentence('benchmark.py'):
        for file in files:
            check_writable_file(file, '--out')
        _check_machine(args)
        timings = [
            timing
            for config in args.configs
            for batch in args.batch
            for timing in benchmark_config(
                read_config(config),
                batch,
                args.shape and tuple(args.shape),
                args.rounds,
                args.device,
                args.whole,
                precisions=args.precision,
                backends=args.backend,
                clock=clock,
            )
        ]
    # First what nothing can take away any more.
    print(format_table(HEAD, [astuple(timing) for timing in timings]))
    csv, picture = files
    write_csv(timings, csv, args.device)
    plot(timings, picture)


if __name__ == '__main__':
    main()
