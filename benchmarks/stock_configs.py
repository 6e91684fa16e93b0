"""Switch HetConv on in the stock configs of mmdet and see what works.

    python benchmarks/stock_configs.py [--families ssd yolo] [--precision bf16]

Of every family (a folder of mmdet/.mim/configs) the configs are tried in
alphabetical order, three at most, until one is found that can be built and
trained dense here: on a CPU, from images with boxes and masks alone. With
conv_cfg=dict(type='HetConv', p=4) wherever a component takes one, and the
stand-ins for RPNHead, SSDHead and SSDVGG, it has to: build; take the dense
model's random weights, every key used or projected; give losses and
predictions on random images and a gradient to every parameter that has one
in the dense model; compute the same from its saved state dict in a fresh
model, and the same after fuse_conv_bn. Of both models the inference form has
to give the same raw outputs, of every level, head and stage.

The rows go to benchmarks/results/stock_configs.csv, the table that is made of
them to docs/results/stock_configs.md. With --precision bf16 or int8 the inference
form of the dense model alone is checked, in that precision; the rows are printed.
"""

import argparse
import copy
import csv
import logging
from pathlib import Path

import mmdet
import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from stock_checks import (
    check,
    check_deployed,
    draw_zeros,
    predict,
    random_batch,
    shake_norms,
    with_gradient,
    without_checkpoints,
)

from mmdet_hetconv.analysis import build_detector
from mmdet_hetconv.deploy.precision import PRECISIONS
from mmdet_hetconv.models import use_conv_cfg
from mmdet_hetconv.utils.table import read_rows

CONFIGS = Path(mmdet.__file__).parent / '.mim' / 'configs'
HET = dict(type='HetConv', p=4)
CSV = Path(__file__).parent / 'results' / 'stock_configs.csv'
TABLE = Path(__file__).parents[1] / 'docs' / 'results' / 'stock_configs.md'
COLUMNS = {
    'family': 'family',
    'config': 'config',
    'layers': 'HetConv layers',
    'planned': 'planned layers',
    'error': 'largest difference deployed',
    'result': 'result',
}


def first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or ['']
    return f'{type(error).__name__}: {lines[0][:160]}'


def try_family(folder: Path, size: tuple[int, int], precision: str = 'fp32') -> dict:
    """The first config of a family that works dense, checked."""
    result = dict(family=folder.name, result='no detector config')
    for path in sorted(folder.glob('*.py'))[:3]:
        result['config'] = path.name
        try:
            cfg = Config.fromfile(path)
            if 'model' not in cfg:
                continue
            model_cfg = without_checkpoints(cfg.model)
            if model_cfg.get('bbox_head', {}).get('type') == 'SSDHead':
                # mmdet's own cannot predict (mmdetection issue 11063).
                model_cfg.bbox_head.update(type='HetSSDHead', conv_cfg=None)
            dense = build_detector(model_cfg)
            shake_norms(dense)
            draw_zeros(dense)
            torch.manual_seed(0)
            batch = random_batch(size)
            # Before training: some heads add keys while they train.
            state = copy.deepcopy(dense.state_dict())
            predict(dense, batch)
            used = with_gradient(dense, batch)
        except Exception as error:  # whatever a stock config may need
            result['result'] = f'fails dense: {first_line(error)}'
            continue
        result['result'] = 'works'
        steps = (check_dense, check_het) if precision == 'fp32' else (check_dense,)
        for step in steps:
            try:
                step(result, state, used, model_cfg, batch, precision)
            except Exception as error:  # the sweep reports it and goes on
                result['result'] = f'fails: {first_line(error)}'
        break
    return result


def check_dense(result, state, used, model_cfg, batch, precision) -> None:
    """The inference form of the dense model."""
    result['planned'], error = check_deployed(model_cfg, state, batch, precision)
    result['error'] = f'{error:.1e}'


def check_het(result, state, used, model_cfg, batch, precision) -> None:
    """The heterogeneous model and its inference form."""
    try:
        switched = use_conv_cfg(model_cfg, HET)
    except ValueError as error:
        result['result'] = f'dense only: {error}'
        return
    result['layers'], state = check(state, used, switched, batch)
    result['planned'], error = check_deployed(switched, state, batch, precision)
    result['error'] = f'{max(error, float(result.get("error", 0))):.1e}'


def write(results: list[dict]) -> None:
    """The rows as CSV, and as a table of the documentation."""
    with CSV.open('w', newline='') as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator='\n')
        writer.writeheader()
        writer.writerows(results)
    works = sum(row['result'] == 'works' for row in results)
    lines = [
        '# Stock detectors',
        '',
        f"{works} of {len(results)} families of mmdet's configs work with "
        'HetConv (P=4) switched on, in training and in the inference form.',
        '"Dense only": the inference form works, and no component takes a '
        'conv_cfg. The others are named with what stops them. The difference '
        'is that of '
        'the raw outputs of the inference form, dense and HetConv, over the '
        'largest value.',
        '',
        'Written by `python benchmarks/stock_configs.py` on random weights, '
        'norms and images of 320 x 320.',
        '',
        f'| {" | ".join(COLUMNS.values())} |',
        '|' + '---|' * len(COLUMNS),
    ]
    for row in results:
        cells = [str(row.get(key, '')).replace('|', '/') for key in COLUMNS]
        lines.append(f'| {" | ".join(cells)} |')
    TABLE.write_text('\n'.join(lines) + '\n')


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--families', nargs='+', help='only these; rows of the others stay')
    parser.add_argument('--size', type=int, nargs=2, default=(320, 320))
    parser.add_argument('--precision', choices=PRECISIONS, default='fp32')
    args = parser.parse_args()
    logging.disable(logging.INFO)
    # TOOD asks for it in its losses.
    MessageHub.get_current_instance().update_info('epoch', 0)
    keeps_rows = args.families and args.precision == 'fp32'
    rows = {row['family']: row for row in read_rows(CSV)} if keeps_rows else {}
    for folder in sorted(CONFIGS.iterdir()):
        if folder.name == '_base_' or not folder.is_dir():
            continue
        if args.families and folder.name not in args.families:
            continue
        row = rows[folder.name] = try_family(folder, tuple(args.size), args.precision)
        print(
            f'{row["family"]:24} {row.get("layers", ""):>4} '
            f'{row.get("planned", ""):>4} {row.get("error", ""):>8} '
            f'{row["result"]}',
            flush=True,
        )
        if args.precision == 'fp32':
            write([rows[name] for name in sorted(rows)])
    works = sum(row['result'] == 'works' for row in rows.values())
    print(f'{works} of {len(rows)} families work')


if __name__ == '__main__':
    main()
