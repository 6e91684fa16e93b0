r"""A training step of whole detectors: milliseconds and peak memory.

    python benchmarks/train_step.py configs/faster_rcnn_het_r50_full.py \
        configs/ssd300_het_vgg16_full.py

Forward and backward of backbone, neck and dense head on random images, and
the optimizer's step; all layers are trained. Dense and HetConv, in both
layouts, run in turns. A row each goes to benchmarks/results/train_step.csv.
"""

import argparse
import time
from pathlib import Path
from statistics import median

import torch
from mmdet.utils import register_all_modules
from mmengine.config import Config
from record import RESULTS, append_row
from torch import nn

from mmdet_hetconv.analysis.config import build_detector, input_shape
from mmdet_hetconv.analysis.peak_memory import peak_memory
from mmdet_hetconv.convert import make_dense
from mmdet_hetconv.export.onnx import RawOutputs
from mmdet_hetconv.kernels.candidate import LAYOUTS
from mmdet_hetconv.utils.arguments import add_shape
from mmdet_hetconv.utils.image_channels import image_channels
from mmdet_hetconv.utils.timing import times_in_turns
from mmdet_hetconv.workflow.config.configs import read_config


class Step:
    """One step of SGD on random images."""

    def __init__(self, detector: nn.Module, images: torch.Tensor, layout: str):
        memory_format = LAYOUTS[layout]
        self.model = RawOutputs(detector).to(memory_format=memory_format)
        self.images = images.contiguous(memory_format=memory_format)
        # The weights stay as they are: a rate that changes nothing.
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-12, momentum=0.9)

    def __call__(self) -> None:
        loss = sum(y.float().square().mean() for y in self.model(self.images))
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


def detectors(cfg: Config) -> dict[str, nn.Module]:
    """HetConv and dense, of the same weights, every layer trained."""
    cfg.model.backbone.init_cfg = None
    if 'frozen_stages' in cfg.model.backbone:
        cfg.model.backbone.frozen_stages = -1
    het = build_detector(cfg.model).train()
    return dict(dense=make_dense(het), het=het)


def measure(path: str, args: argparse.Namespace) -> None:
    """Append the rows of one config."""
    cfg = read_config(path)
    shape = tuple(args.shape or input_shape(cfg))
    for layout in LAYOUTS:
        models = detectors(cfg)
        channels = image_channels(models['het'])
        images = torch.randn(args.batch, channels, *shape, device=args.device)
        parameters = {
            kind: sum(p.numel() for p in model.parameters()) for kind, model in models.items()
        }
        steps = {
            kind: Step(model.to(args.device), images, layout) for kind, model in models.items()
        }
        peaks = {}
        for kind, step in steps.items():
            step()
            peaks[kind] = peak_memory(step, args.device)
        times = times_in_turns(steps, args.rounds, args.device, time.perf_counter)
        for kind in steps:
            ms = median(times[kind])
            row = dict(
                config=Path(path).stem,
                kind=kind,
                layout=layout,
                image=f'{shape[0]}x{shape[1]}',
                batch=args.batch,
                parameters=parameters[kind],
                ms=f'{ms:.0f}',
                gain=f'{median(times["dense"]) / ms:.2f}',
                peak_mb=f'{peaks[kind]:.0f}',
            )
            append_row(args.out, row)
            print(*row.values(), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('configs', nargs='+')
    add_shape(parser)
    parser.add_argument('--batch', type=int, default=1)
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--rounds', type=int, default=7)
    parser.add_argument('--out', default=RESULTS / 'train_step.csv')
    args = parser.parse_args()
    register_all_modules(init_default_scope=True)
    for path in args.configs:
        measure(path, args)


if __name__ == '__main__':
    main()
