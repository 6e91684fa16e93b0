#!/usr/bin/env python
"""Seconds and MACs of single layers: deployed HetConv against the best dense.

    efficiency = (t_dense / t_het) / (MACs_dense / MACs_het)

For every layer the fastest dense implementation at hand and the plan's choice
for HetConv run in turns. Dense: eager and oneDNN with fused ReLU, in both
layouts, and torch.compile with --compile; in int8 our own kernel. --backend adds
both layers in other runtimes. One command fills the table of a
machine with a GPU:

    python benchmarks/latency.py --device cuda --precision bf16 --batch 8

On a GPU every implementation is replayed from a CUDA graph, all of the plan's
candidates among them: for a small layer a launch takes the host longer than
the kernel takes the GPU.

--train times forward + backward of the training layers instead. --cpu-time
takes one thread and its processor time, which other programs on the machine
disturb less than the clock on the wall.
"""

import argparse
import copy
import math
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import geometric_mean, median, quantiles
from tempfile import TemporaryDirectory

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmdet_hetconv.export.runtimes import BACKENDS, load_graph, quantize_graph
from mmdet_hetconv.kernels import Plan, PlannedConv2d
from mmdet_hetconv.kernels.candidate import LAYOUTS
from mmdet_hetconv.kernels.plan import CANDIDATES
from mmdet_hetconv.kernels.weights import Int8, Levels
from mmdet_hetconv.layers import HetConv2d
from mmdet_hetconv.utils.machine import machine
from mmdet_hetconv.utils.table import format_table, write_rows
from mmdet_hetconv.utils.timing import times_in_turns

# Channels and size of the map, see --layers.
GRID = (
    *('64@200', '128@100', '256@50', '512@25'),
    *('64@112', '128@56', '256@28', '512@14'),
    *('256@100', '256@25', '256@13', '256@7'),  # levels of an FPN, with 256@50
)
DTYPES = dict(fp32=torch.float32, bf16=torch.bfloat16, fp16=torch.float16)
PARTS = (2, 4, 8, 16, 32, 64)
# Runs in one CUDA graph.
CAPTURED = 10
NEAR = 1.2  # times the least median of a few rounds: may be the best
COLUMNS = (
    *('layer', 'batch', 'p', 'MACs gain', 'dense by', 'dense ms', 'het by'),
    *('het ms', 'p10', 'p90', 'time gain', 'efficiency', 'by minima'),
    *('GMACs', 'floor ms', 'MB kept'),
)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--layers', nargs='+', default=GRID, metavar='C@SIZE')
    parser.add_argument('--parts', nargs='+', type=int, default=PARTS)
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--precision', choices=[*DTYPES, 'int8'], default='fp32')
    parser.add_argument('--backend', nargs='*', choices=BACKENDS, default=[])
    parser.add_argument('--batch', type=int, default=1)
    parser.add_argument('--rounds', type=int, default=21)
    parser.add_argument('--compile', action='store_true')
    parser.add_argument(
        '--untimed',
        type=int,
        default=4,
        metavar='RUNS',
        help='before each timed one; with 0 dense and HetConv alternate run by run',
    )
    parser.add_argument('--train', action='store_true')
    parser.add_argument('--cpu-time', action='store_true')
    parser.add_argument(
        '--peak',
        type=float,
        nargs=2,
        metavar=('TFLOPS', 'GB_PER_S'),
        help='of the machine, for the floor max(MACs / peak, bytes / band)',
    )
    parser.add_argument('--out', default='benchmarks/results/latency')
    return parser.parse_args(argv)


def clock_of(args) -> Callable[[], float]:
    return time.thread_time if args.cpu_time else time.perf_counter


def dense_runs(x: Tensor, layer: nn.Conv2d, compiled: bool) -> dict:
    """Every way to compute relu(conv(x)) that torch has."""
    runs: dict[str, Callable] = {}
    for name, layout in LAYOUTS.items():
        here = x.contiguous(memory_format=layout)
        weight = layer.weight.contiguous(memory_format=layout)
        bias = layer.bias

        def eager(here=here, weight=weight, bias=bias):
            return F.conv2d(here, weight, bias, 1, 1).relu_()

        runs[f'eager {name}'] = eager
        if x.device.type == 'cuda':
            runs[f'cudnn {name}'] = partial(
                torch.cudnn_convolution_relu, here, weight, bias, (1, 1), (1, 1), (1, 1), 1
            )
        if compiled:
            runs[f'compiled {name}'] = torch.compile(eager, options={'freezing': True})
        if x.device.type == 'cpu' and x.dtype in (torch.float32, torch.bfloat16):
            packed = torch.ops.mkldnn._reorder_convolution_weight(
                *(weight, (1, 1), (1, 1), (1, 1), 1, list(x.shape))
            )
            runs[f'onednn {name}'] = lambda here=here, packed=packed: (
                torch.ops.mkldnn._convolution_pointwise(
                    *(here, packed, layer.bias, (1, 1), (1, 1), (1, 1)), *(1, 'relu', [], '')
                )
            )
    return runs


def planned(layer: nn.Module, x: Tensor, args) -> PlannedConv2d:
    """The layer in inference form, relu(layer(x)) as floats."""
    conv = PlannedConv2d(layer, Plan(budget_s=math.inf, clock=clock_of(args)), relu=True)
    if args.precision == 'int8':
        conv.int8 = Int8(Levels((x.max() - x.min()).item() / 255, 128))
    return conv


def backend_runs(kind: str, layer: nn.Module, x: Tensor, args) -> dict:
    """relu(layer(x)) in other runtimes."""
    runs = {}
    with TemporaryDirectory() as folder:
        graph = Path(folder) / 'layer.onnx'
        if args.backend:
            # Of float32, whatever it is to compute in; the other runs keep theirs.
            model = nn.Sequential(copy.deepcopy(layer).float(), nn.ReLU()).eval()
            torch.onnx.export(
                *(model, (x.float(),), str(graph)),
                input_names=['images'],
                dynamo=True,
                external_data=False,
                verbose=False,
            )
            if args.precision == 'int8':
                quantize_graph(graph, [x.numpy()], graph)
        for name in args.backend:
            if args.precision in BACKENDS[name]:
                compiled = load_graph(name, graph, args.precision, tuple(x.shape))
                runs[f'{kind} {name}'] = partial(compiled.run, x.float().numpy())
    return runs


def het_runs(x: Tensor, layer: PlannedConv2d) -> dict:
    """The plan's choices for both layouts of the input; on a GPU all candidates."""
    runs: dict[str, Callable] = {}
    for name, layout in LAYOUTS.items():
        here = x.contiguous(memory_format=layout)
        if x.device.type == 'cuda':
            weights = layer.weights()
            for kind in CANDIDATES:
                if not kind.quantized and kind.why_not(weights, here) is None:
                    runs[f'{kind.name} from {name}'] = partial(
                        kind(weights, here), here, None, layer.relu
                    )
            continue
        layer(here)
        chosen = list(layer.plan.choices.values())[-1]
        runs[f'{chosen.candidate} from {name}'] = lambda here=here: layer(here)
    return runs


def train_step(layer: nn.Module, x: Tensor, layout: torch.memory_format) -> Callable[[], None]:
    layer = layer.to(memory_format=layout)
    x = x.contiguous(memory_format=layout).requires_grad_()
    up = None

    def step():
        nonlocal up
        y = layer(x)
        if up is None:
            up = torch.randn_like(y)
        y.backward(up)
        layer.zero_grad(set_to_none=True)
        x.grad = None

    return step


def measure(runs: dict[str, Callable], rounds: int, args) -> dict:
    """Milliseconds of every run, in turns, by default in warm caches."""
    for run in runs.values():
        run()
        run()
    clock = clock_of(args)
    if args.device == 'cpu' or args.train:
        return times_in_turns(runs, rounds, args.device, clock, args.untimed)
    replays = {name: captured(run) for name, run in runs.items()}
    times = times_in_turns(replays, rounds, args.device, clock, args.untimed)
    return {name: [ms / CAPTURED for ms in values] for name, values in times.items()}


def captured(run: Callable) -> Callable[[], None]:
    """What replays some runs, without the host between them."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(CAPTURED):
            run()
    return graph.replay


def contenders(times: dict[str, list[float]]) -> list[str]:
    """The run with the least median, and those near to it."""
    medians = {name: median(values) for name, values in times.items()}
    best = min(medians.values())
    return [name for name, ms in medians.items() if ms <= NEAR * best]


def compare(args, channels: int, size: int, p: int) -> dict | None:
    """One row of the table; None where p does not fit."""
    if channels % p:
        return None
    dtype = DTYPES.get(args.precision, torch.float32)
    x = torch.randn(args.batch, channels, size, size)
    x = x.to(args.device, dtype)
    dense = nn.Conv2d(channels, channels, 3, padding=1).to(args.device, dtype)
    het = HetConv2d(channels, channels, 3, padding=1, p=p)
    het = het.to(args.device, dtype)
    kept = 0
    if args.train:
        steps = [
            {
                f'{kind} {name}': train_step(layer, x.clone(), layout)
                for name, layout in LAYOUTS.items()
            }
            for kind, layer in (('dense', dense), ('het', het))
        ]
    else:
        with torch.no_grad():
            layer = planned(het, x, args)
            if args.precision == 'int8':
                ours = {
                    f'dense {k}': run for k, run in het_runs(x, planned(dense, x, args)).items()
                }
            else:
                ours = dense_runs(x, dense, args.compile)
            steps = [
                ours | backend_runs('dense', dense, x, args),
                het_runs(x, layer) | backend_runs('het', het, x, args),
            ]
        kept = layer.extra_bytes()
    with torch.set_grad_enabled(args.train):
        # All of them first; the best of each kind, and what may be as good,
        # then in turns.
        kept_runs = {}
        for runs in steps:
            first = measure(runs, max(3, args.rounds // 4), args)
            kept_runs |= {n: runs[n] for n in contenders(first)}
        times = measure(kept_runs, args.rounds, args)
    names = [min(runs.keys() & times, key=lambda n: median(times[n])) for runs in steps]
    a, b = (median(times[name]) for name in names)
    deciles = quantiles(times[names[1]], n=10)
    pixels = args.batch * size * size
    macs = pixels * channels * (channels + 8 * channels // p)
    gain = 9 * channels / (channels + 8 * channels // p)
    layer_name = f'{channels}@{size}'
    values = [layer_name, args.batch, p, round(gain, 2), names[0], round(a, 4), names[1]]
    values += [round(ms, 4) for ms in (b, deciles[0], deciles[-1])]
    by_minima = min(times[names[0]]) / min(times[names[1]]) / gain
    values += [round(value, 3) for value in (a / b, a / b / gain, by_minima)]
    values += [round(macs / 1e9, 4), '', round(kept / 2**20, 2)]
    row = dict(zip(COLUMNS, values))
    if args.peak:
        moved = x.element_size() * (2 * x.numel() + macs // pixels)
        floor = max(2 * macs / args.peak[0] / 1e12, moved / args.peak[1] / 1e9)
        row['floor ms'] = round(1e3 * floor, 4)
    return row


def plot(rows: list[dict], path: Path) -> None:
    """Relative time against relative MACs, and the line of efficiency 1."""
    import matplotlib

    matplotlib.use('Agg')
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 5))
    axes.set_prop_cycle(color=plt.colormaps['tab20'].colors)
    for layer in dict.fromkeys(row['layer'] for row in rows):
        mine = [row for row in rows if row['layer'] == layer]
        axes.plot(
            [1 / row['MACs gain'] for row in mine],
            [1 / row['time gain'] for row in mine],
            'o-',
            label=layer,
        )
    axes.plot([0.1, 1], [0.1, 1], 'k--', label='efficiency 1')
    axes.axhline(1, color='grey', lw=0.5)
    axes.set(
        xscale='log',
        yscale='log',
        xlabel='MACs / dense MACs',
        ylabel='time / time of the best dense',
    )
    axes.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True
    if args.cpu_time:
        torch.set_num_threads(1)
    out = Path(args.out)
    out.parent.mkdir(parents=True, exist_ok=True)  # fails before it measures
    rows = []
    for layer in args.layers:
        channels, size = map(int, layer.split('@'))
        for p in args.parts:
            row = compare(args, channels, size, p)
            if row:
                rows.append(row)
                print(*row.values(), file=sys.stderr, flush=True)
    print(format_table(COLUMNS, [list(row.values()) for row in rows]))
    where = dict(precision=args.precision) | machine(args.device)
    write_rows(out.with_suffix('.csv'), [row | where for row in rows])
    plot(rows, out.with_suffix('.png'))
    target = [row for row in rows if row['p'] in (4, 8) and int(row['layer'].split('@')[0]) >= 128]
    print('slowest against dense:', min(row['time gain'] for row in rows))
    if target:
        means = [geometric_mean([row[by] for row in target]) for by in ('efficiency', 'by minima')]
        print(
            'P=4 and 8, 128 - 512 channels: geometric mean of the efficiency '
            f'{means[0]:.3f}, by minima {means[1]:.3f}'
        )
    print(f'torch {torch.__version__}, {torch.get_num_threads()} threads')


if __name__ == '__main__':
    main()
