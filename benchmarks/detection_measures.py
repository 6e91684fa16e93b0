"""What detection.py measures of a detector besides training it."""

import re
import time
from functools import partial

import torch
from mmengine.config import Config

from mmdet_hetconv.analysis.config import build_detector, input_shape
from mmdet_hetconv.deploy import switch_to_deploy
from mmdet_hetconv.export.onnx import RawOutputs
from mmdet_hetconv.kernels import Plan
from mmdet_hetconv.utils.image_channels import image_channels
from mmdet_hetconv.utils.timing import times_in_turns


def latencies(configs: dict[str, Config], rounds: int) -> dict[str, float]:
    """Milliseconds of each detector, deployed, one image, without RoI head."""
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    alone = device == 'cpu' and torch.get_num_threads() == 1
    clock = time.thread_time if alone else time.perf_counter
    runs = {}
    for key, cfg in configs.items():
        model = build_detector(cfg.model)
        model.init_weights()
        switch_to_deploy(model.to(device).eval(), Plan(60.0, clock=clock))
        images = torch.randn(1, image_channels(model), *input_shape(cfg), device=device)
        images = images.contiguous(memory_format=torch.channels_last)
        runs[key] = partial(RawOutputs(model), images)
    with torch.no_grad():
        times_in_turns(runs, 2, device, clock)  # warms up, chooses kernels
        times = times_in_turns(runs, rounds, device, clock)
    return {key: sorted(ms)[rounds // 2] for key, ms in times.items()}


def metric_columns(metrics: dict[str, float]) -> dict[str, str]:
    """What a row says of the metrics of an evaluation, in per cent."""
    names = dict(mAP='coco/bbox_mAP', mAP_50='coco/bbox_mAP_50')
    names['voc_mAP_50'] = 'pascal_voc/mAP'
    row = {  # the metrics themselves round to a tenth
        column: f'{100 * metrics[key]:.1f}' if key in metrics else ''
        for column, key in names.items()
    }
    classes = (
        f'{key[5:-10]}={100 * value:.1f}'
        for key, value in metrics.items()
        if re.fullmatch(r'coco/.*_precision', key)
    )
    return row | dict(mAP_by_class=' '.join(classes))
