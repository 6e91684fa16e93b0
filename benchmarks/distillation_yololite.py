"""What distillation without labels gives back to a YOLO-LITE of other people.

    python benchmarks/distillation_yololite.py --weights FILE --images DIR \
        --train train.json --val val.json --p 2

YOLO-LITE (Pedoeem and Huang, arXiv 1811.05588): seven convolutions, no batch norm. FILE
has the float32 weights of the reference implementation, the JSON files have COCO's form.
All 3 x 3 layers but the first are converted, calibrated and distilled on the training
photos without their labels. AP and AP@50 of the dense network and after every step are
printed, those on the validation photos; with --held-out those on 100 training photos
that nothing is fitted to, which is for choosing. --loss decoded compares predictions as
they are decoded: objectness and classes by divergence, boxes where the dense network
sees an object. The last line is a row in JSON.
"""

import argparse
import contextlib
import copy
import io
import json
import time
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from mmcv.ops import batched_nms
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor, nn

from mmdet_hetconv.convert import calibrate, convert_model, distil

SIZE = 224
CELLS = 7
CHANNELS = (3, 16, 32, 64, 128, 128, 256)
CLASSES = 80
ANCHORS = ((1.08, 1.19), (3.42, 4.41), (6.63, 11.38), (9.42, 5.11), (16.62, 10.52))
HELD_OUT = 100  # images
BATCH = 16


def build(weights: Path) -> nn.Sequential:
    """The trained network."""
    layers: list[nn.Module] = []
    for inputs, outputs in zip(CHANNELS, CHANNELS[1:]):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.LeakyReLU(0.1), nn.MaxPool2d(2)]
    model = nn.Sequential(*layers[:-1], nn.Conv2d(CHANNELS[-1], len(ANCHORS) * (5 + CLASSES), 1))
    values = torch.from_numpy(np.fromfile(weights, dtype=np.float32)[4:])  # four words of header
    parameters = [
        p for conv in model if isinstance(conv, nn.Conv2d) for p in (conv.bias, conv.weight)
    ]
    parts = values.split([parameter.numel() for parameter in parameters])
    with torch.no_grad():
        for parameter, part in zip(parameters, parts):
            parameter.copy_(part.view_as(parameter))
    return model.eval()


def read(annotations: Path, folder: Path) -> tuple[COCO, list[dict], Tensor]:
    """A data set, its images' entries, and the images (B, 3, 224, 224)."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(annotations))
    entries = coco.loadImgs(sorted(coco.getImgIds()))
    images = [cv2.imread(str(folder / entry['file_name']))[..., ::-1] for entry in entries]
    images = [cv2.resize(image, (SIZE, SIZE)) for image in images]
    return coco, entries, torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255


def by_anchor(output: Tensor) -> Tensor:
    """(B, 425, 7, 7) to (B, 5, 85, 7, 7)."""
    return output.unflatten(1, (len(ANCHORS), 5 + CLASSES))


def decode(output: Tensor) -> tuple[Tensor, Tensor]:
    """Boxes (5 * 49, 4), corners in units of the image, and scores (5 * 49, 80)."""
    (y,) = by_anchor(output[None])
    row, column = torch.meshgrid(torch.arange(CELLS), torch.arange(CELLS), indexing='ij')
    x_centre = (y[:, 0].sigmoid() + column) / CELLS
    y_centre = (y[:, 1].sigmoid() + row) / CELLS
    width, height = (y[:, 2:4].exp() * torch.tensor(ANCHORS)[..., None, None] / CELLS).unbind(1)
    scores = y[:, 4:5].sigmoid() * y[:, 5:].softmax(1)
    half = width / 2, height / 2
    corners = x_centre - half[0], y_centre - half[1], x_centre + half[0], y_centre + half[1]
    return torch.stack(corners, -1).flatten(0, 2), scores.movedim(1, -1).flatten(0, 2)


def evaluate(model: nn.Module, coco: COCO, entries: list[dict], images: Tensor) -> list[float]:
    """AP and AP@50, per cent."""
    categories = sorted(coco.getCatIds())
    found = []
    with torch.no_grad():
        outputs = torch.cat([model(batch) for batch in images.split(BATCH)])
    for entry, output in zip(entries, outputs):
        boxes, scores = decode(output)
        boxes = boxes * torch.tensor([entry['width'], entry['height']] * 2)
        rows, labels = (scores > 0.005).nonzero(as_tuple=True)
        nms = dict(type='nms', iou_threshold=0.45)
        kept, chosen = batched_nms(boxes[rows], scores[rows, labels], labels, nms)
        for (x1, y1, x2, y2, score), label in zip(kept.tolist(), labels[chosen].tolist()):
            box = [x1, y1, x2 - x1, y2 - y1]
            category = categories[label]
            found.append(dict(image_id=entry['id'], category_id=category, bbox=box, score=score))
    with contextlib.redirect_stdout(io.StringIO()):
        metric = COCOeval(coco, coco.loadRes(found), 'bbox')
        metric.params.imgIds = [entry['id'] for entry in entries]
        metric.evaluate()
        metric.accumulate()
        metric.summarize()
    return [round(100 * value, 2) for value in metric.stats[:2].tolist()]


def decoded_error(output: Tensor, wanted: Tensor) -> Tensor:
    """Divergence of objectness and classes, and boxes by the dense network's objectness.

    For each object that the dense network expects.
    """
    mine, theirs = by_anchor(output), by_anchor(wanted)
    seen = theirs[:, :, 4].sigmoid()
    objects = F.binary_cross_entropy_with_logits(mine[:, :, 4], seen, reduction='none')
    objects = objects - F.binary_cross_entropy_with_logits(theirs[:, :, 4], seen, reduction='none')
    logs = theirs[:, :, 5:].log_softmax(2)
    classes = (logs.exp() * (logs - mine[:, :, 5:].log_softmax(2))).sum(2)
    centres = (mine[:, :, :2].sigmoid() - theirs[:, :, :2].sigmoid()).abs().sum(2)
    sides = (mine[:, :, 2:4] - theirs[:, :, 2:4]).abs().sum(2)
    return (objects + seen * (classes + centres + sides)).sum() / seen.sum().clamp_min(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--weights', type=Path, required=True)
    parser.add_argument('--images', type=Path, required=True, help='folder of all photos')
    parser.add_argument('--train', type=Path, required=True, help='JSON of the training photos')
    parser.add_argument('--val', type=Path, required=True, help='JSON of the validation photos')
    parser.add_argument('--p', type=int, default=2)
    parser.add_argument('--steps', type=int)
    parser.add_argument('--minutes', type=float, help='15 if there are no --steps')
    parser.add_argument('--loss', choices=['outputs', 'decoded'], default='outputs')
    parser.add_argument('--learn', choices=['converted', 'all'])
    parser.add_argument('--held-out', action='store_true')
    args = parser.parse_args()
    if args.steps is None and args.minutes is None:
        args.minutes = 15.0
    dense = build(args.weights)
    coco, entries, images = read(args.train, args.images)
    if args.held_out:
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
        held, rest = order[:HELD_OUT].sort().values, order[HELD_OUT:].sort().values
        judged = coco, [entries[i] for i in held], images[held]
        images = images[rest]
    else:
        judged = read(args.val, args.images)
    row = dict(p=args.p, loss=args.loss, learn=args.learn, held_out=args.held_out)
    row['dense'] = evaluate(dense, *judged)
    print('dense', row['dense'], flush=True)
    het = copy.deepcopy(dense)
    convert_model(het, p=args.p)
    row['projected'] = evaluate(het, *judged)
    batches = list(images.split(BATCH))
    calibrate(dense, het, batches)
    row['calibrated'] = evaluate(het, *judged)
    print('calibrated', row['calibrated'], flush=True)
    started = time.process_time()
    report = distil(
        dense,
        het,
        batches,
        steps=args.steps,
        minutes=args.minutes,
        learn=args.learn,
        loss=decoded_error if args.loss == 'decoded' else None,
        log=lambda line: print(line, flush=True),
    )
    row['cpu_seconds'] = round(time.process_time() - started)
    row['distilled'] = evaluate(het, *judged)
    row |= dict(steps=report.steps, before=report.before, after=report.after)
    print(json.dumps(row | dict(stopped=report.stopped)))


if __name__ == '__main__':
    main()
