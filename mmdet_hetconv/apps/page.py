"""The page of a comparison: one HTML file that needs nothing else.

It names no other address, and its Content-Security-Policy forbids all. The
script draws boxes over the pictures, so that each is in the file once.
"""

import argparse
import base64
import hashlib
import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

import cv2
import torch
from torch import Tensor

from ..utils.table import with_unit
from ..version import __version__
from .reading import IN_COLOUR
from .side import Side

# Scores that the page offers as the least.
THRESHOLDS = tuple(number / 20 for number in range(1, 20))


# Longest edge of a picture in the page, pixels.
_LONGEST = 800
_JPEG = (cv2.IMWRITE_JPEG_QUALITY, 80)


@dataclass
class Compared:
    """One image: what is where, by whom.

    Attributes:
        name: relative to the folder.
        size: width and height.
        truth: class names and boxes, None if nothing is known of the image.
        found: by A and by B; boxes, scores and labels.
        disagreement: at each of THRESHOLDS.
    """

    name: str
    size: tuple[int, int]
    truth: list[tuple[str, list[float]]] | None
    found: list[dict[str, Tensor]]
    disagreement: list[float]


def render_page(
    args: argparse.Namespace,
    sides: Sequence[Side],
    classes: Sequence[str],
    images: Sequence[Compared],
) -> str:
    """The page's text.

    Args:
        args: of tools/compare.py.
        sides: A and B.
        classes: by label.
        images: all; of these ``args.max_images`` are shown, those of the
            largest disagreement.
    """
    start = min(
        range(len(THRESHOLDS)),
        key=lambda i: abs(THRESHOLDS[i] - args.score_thr),
    )
    shown = sorted(images, key=lambda image: -image.disagreement[start])
    shown = shown[: args.max_images]
    # Annotations may have classes that no detector knows.
    names = dict.fromkeys(classes)
    names |= dict.fromkeys(n for i in shown for n, _ in i.truth or ())
    names = list(names)
    data = dict(
        thresholds=THRESHOLDS,
        start=start,
        classes=names,
        sides=[side.title for side in sides],
        images=[_image(image, names, Path(args.images)) for image in shown],
    )
    folder = files(__package__) / 'compare_page'
    style, script, page = (
        (folder / name).read_text()
        for name in ('page.css', 'page.js', 'page.html')
    )
    return Template(page).substitute(
        title=escape(' against '.join(side.title for side in sides)),
        policy='; '.join(
            (
                "default-src 'none'",
                'img-src data: blob:',
                f"style-src '{_digest(style)}'",
                f"script-src '{_digest(script)}'",
            )
        ),
        style=style,
        script=script,
        # A file's name must not end the element.
        data=json.dumps(data, separators=(',', ':')).replace('<', '\\u003c'),
        columns=''.join(
            f'<th scope="col">{escape(side.title)}</th>' for side in sides
        ),
        rows=_rows(sides),
        notes='\n'.join(
            f'<li>{escape(note)}</li>'
            for note in _notes(args, sides, images, len(shown))
        ),
    )


def _digest(text: str) -> str:
    """How a Content-Security-Policy names an inline element."""
    digest = hashlib.sha256(text.encode()).digest()
    return f'sha256-{base64.b64encode(digest).decode()}'


def _image(image: Compared, classes: list[str], folder: Path) -> dict:
    numbers = {name: number for number, name in enumerate(classes)}
    truth = None
    if image.truth is not None:
        truth = [
            [numbers[name], *(round(value, 1) for value in box)]
            for name, box in image.truth
        ]
    pixels = IN_COLOUR.file(folder.expanduser() / image.name)
    scale = min(1, _LONGEST / max(image.size))
    if scale < 1:
        size = tuple(max(1, round(scale * edge)) for edge in image.size)
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    _, jpeg = cv2.imencode('.jpg', pixels, _JPEG)
    return dict(
        name=image.name,
        size=image.size,
        truth=truth,
        found=[_boxes(found) for found in image.found],
        disagreement=[round(value, 3) for value in image.disagreement],
        jpeg=base64.b64encode(jpeg).decode(),
    )


def _boxes(found: dict[str, Tensor]) -> list[list[float]]:
    """Label, x, y, width, height, score; of those that can be shown."""
    entries = []
    for label, (x1, y1, x2, y2), score in zip(
        found['labels'].tolist(),
        found['boxes'].tolist(),
        found['scores'].tolist(),
    ):
        if score >= THRESHOLDS[0]:
            box = (round(value, 1) for value in (x1, y1, x2 - x1, y2 - y1))
            entries.append([label, *box, round(score, 3)])
    return entries


def _rows(sides: Sequence[Side]) -> str:
    """Of the table: what is measured, A, B, B against A."""
    rows = [('HetConv layers', [str(side.het_layers) for side in sides], '')]
    rows.append(
        (
            'Parameters',
            [with_unit(side.parameters) for side in sides],
            _ratio([side.parameters for side in sides]),
        )
    )
    macs = [side.macs for side in sides]
    rows.append(
        (
            'Multiply-adds (MACs)',
            ['not counted' if m is None else with_unit(m) for m in macs],
            '' if None in macs else _ratio(macs),
        )
    )
    spreads = [side.spread() for side in sides]
    rows.append(
        (
            'Time of an image, median (10 % to 90 %)',
            [
                f'{middle:.1f} ms ({low:.1f} to {high:.1f})'
                for middle, low, high in spreads
            ],
            _ratio([middle for middle, _, _ in spreads]),
        )
    )
    for name in sides[0].metrics:
        values = [side.metrics[name] for side in sides]
        if min(values) < 0:  # no box of that size is annotated
            continue
        rows.append(
            (
                name,
                [f'{value:.3f}' for value in values],
                f'{values[1] - values[0]:+.3f}',
            )
        )
    return '\n'.join(
        f'<tr><th scope="row">{escape(name)}</th>'
        + ''.join(f'<td>{escape(cell)}</td>' for cell in (*cells, change))
        + '</tr>'
        for name, cells, change in rows
    )


def _ratio(values: Sequence[float]) -> str:
    return f'× {values[1] / values[0]:.2f}' if values[0] else ''


def _notes(
    args: argparse.Namespace,
    sides: Sequence[Side],
    images: Sequence[Compared],
    shown: int,
) -> list[str]:
    """What the numbers are of."""
    shapes = ' and '.join(
        dict.fromkeys('{} × {}'.format(*side.shape) for side in sides)
    )
    form = 'the inference form' if args.deploy else 'the trained form'
    notes = [
        f'{side.name}: {side.config} with {side.weights}' for side in sides
    ]
    notes += [
        f'{len(images)} images of {args.images}, of which {shown} are shown.',
        'Disagreement is 1 minus the panoptic quality of one detector’s '
        'boxes with the other’s as the truth: 0 for the same boxes, 1 if none '
        'has a partner of its class with an overlap (IoU) of a half.',
        f'MACs and time are of one image of {shapes} pixels (height × width, '
        'as the network sees it); MACs of the RoI head for as many regions '
        'as the config allows.',
        f'Time: {form}, from the network’s input to the final boxes, '
        f'{args.rounds} runs of each in turns on {_machine()}.',
    ]
    known = sum(image.truth is not None for image in images)
    if known:
        notes.append(
            f'AP and AR: COCO’s, on the {known} images that {args.ann_file} '
            'names.'
        )
    return notes


def _machine() -> str:
    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
    else:
        name = (
            f'a CPU ({platform.machine()}), threads: {torch.get_num_threads()}'
        )
    return (
        f'{name}, torch {torch.__version__}, mmdet_hetconv {__version__}, '
        f'{date.today().isoformat()}'
    )
