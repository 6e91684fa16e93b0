"""Train and detect for long at ever new sizes; watch memory and open files.

    OMP_NUM_THREADS=1 python benchmarks/soak.py

A FCOS detector with HetConv, a few channels wide, trains with a batch of two
images of random sizes; then its inference form detects in images of random
sizes, one by one. Every row of the CSV file is a moment: the memory of the
process, its open files, and what the plan and its layers remember. A shape is
that of a layer's input, so that an image counts once for each of 31 layers.
"""

import argparse
import gc
import os
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.utils import register_all_modules
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from record import RESULTS, append_row

from mmdet_hetconv.deploy import switch_to_deploy
from mmdet_hetconv.kernels import Plan, planned_convs
from mmdet_hetconv.utils.table import format_table

HET = dict(type='HetConv', p=4)
MODEL = ConfigDict(
    type='FCOS',
    data_preprocessor=dict(type='DetDataPreprocessor', pad_size_divisor=1),
    backbone=dict(
        type='ResNet',
        depth=18,
        base_channels=8,
        num_stages=4,
        out_indices=(1, 2, 3),
        norm_cfg=dict(type='BN'),
        conv_cfg=HET,
    ),
    neck=dict(type='FPN', in_channels=[16, 32, 64], out_channels=16, num_outs=3),
    bbox_head=dict(
        type='FCOSHead',
        num_classes=3,
        in_channels=16,
        feat_channels=16,
        stacked_convs=1,
        strides=[8, 16, 32],
        regress_ranges=((-1, 32), (32, 64), (64, 1e8)),
        conv_cfg=HET,
        norm_cfg=None,
    ),
    test_cfg=dict(
        nms_pre=200, score_thr=0.0, nms=dict(type='nms', iou_threshold=0.5), max_per_img=50
    ),
)


@dataclass(frozen=True)
class Moment:
    """What the process holds after a number of steps."""

    phase: str
    step: int
    resident_mb: float
    open_files: int
    planned_shapes: int = 0
    remembered_shapes: int = 0
    prepared_mb: float = 0.0


HEAD = tuple(field.name for field in fields(Moment))


def take(phase: str, step: int, convs=()) -> Moment:
    gc.collect()
    pages = int(Path('/proc/self/statm').read_text().split()[1])
    plans = {id(conv.plan): conv.plan for conv in convs}.values()
    return Moment(
        phase,
        step,
        round(pages * os.sysconf('SC_PAGE_SIZE') / 2**20, 1),
        len(os.listdir('/proc/self/fd')),
        sum(len(plan.choices) for plan in plans),
        sum(len(conv._chosen) for conv in convs),
        round(sum(conv.extra_bytes() for conv in convs) / 2**20, 2),
    )


def sample(height: int, width: int, boxes: bool) -> DetDataSample:
    made = DetDataSample(
        metainfo=dict(img_shape=(height, width), ori_shape=(height, width), scale_factor=(1.0, 1.0))
    )
    if boxes:
        corner = torch.rand(4, 2) * torch.tensor([width / 2, height / 2])
        size = torch.tensor([width / 2, height / 2])
        made.gt_instances = InstanceData(
            bboxes=torch.cat([corner, corner + size * torch.rand(4, 2)], 1),
            labels=torch.randint(0, 3, (4,)),
        )
    return made


def batch(draw: random.Random, images: int, largest: int, boxes: bool) -> dict:
    """Noise images of different sizes, as a data loader hands them over."""
    sizes = [(draw.randint(32, largest), draw.randint(32, largest)) for _ in range(images)]
    return dict(
        inputs=[torch.randint(0, 256, (3, *size), dtype=torch.uint8) for size in sizes],
        data_samples=[sample(*size, boxes) for size in sizes],
    )


def train(model, steps: int, every: int, draw: random.Random, largest: int) -> Iterator[Moment]:
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    model.train()
    for step in range(1, steps + 1):
        data = model.data_preprocessor(batch(draw, 2, largest, True), True)
        loss, _ = model.parse_losses(model(**data, mode='loss'))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10)
        optimizer.step()
        if step % every == 0:
            yield take('training', step)
    if not torch.isfinite(loss):
        raise RuntimeError(f'the loss is {loss.item()} after {steps} steps')


@torch.no_grad()
def detect(model, steps: int, every: int, draw: random.Random, largest: int) -> Iterator[Moment]:
    convs = planned_convs(model)
    for step in range(1, steps + 1):
        model.test_step(batch(draw, 1, largest, False))
        if step % every == 0:
            yield take('inference', step, convs)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--train', type=int, default=2000, help='steps')
    parser.add_argument('--detect', type=int, default=5000, help='images')
    parser.add_argument('--largest', type=int, default=160, help='pixels')
    parser.add_argument('--rows', type=int, default=10, help='of each phase')
    parser.add_argument('--budget', type=float, default=30, help='of the plan')
    parser.add_argument('--out', metavar='FILE.csv', default=RESULTS / 'soak.csv')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    register_all_modules()
    torch.manual_seed(0)
    draw = random.Random(0)
    model = MODELS.build(MODEL)
    moments = []
    every = max(1, args.train // args.rows)
    moments += train(model, args.train, every, draw, args.largest)
    model = switch_to_deploy(model.eval(), Plan(budget_s=args.budget))
    every = max(1, args.detect // args.rows)
    moments += detect(model, args.detect, every, draw, args.largest)
    rows = [asdict(moment) for moment in moments]
    print(format_table(HEAD, [tuple(row.values()) for row in rows]))
    for row in rows:
        append_row(args.out, row)


if __name__ == '__main__':
    main()
