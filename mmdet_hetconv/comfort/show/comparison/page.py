"""The page of a comparison: one HTML file that needs nothing else.

It names no other address, and its Content-Security-Policy forbids all. The
script draws boxes over the pictures, so that each is in the file once.
"""

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import cv2
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from torch import Tensor

from ....utils.machine import machine
from ....utils.table import with_unit
from ....version import __version__
from ..reading import IN_COLOUR

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
    forms: Sequence[Mapping[str, Any]],
    classes: Sequence[str],
    images: Sequence[Compared],
    folder: Path,
    *,
    score_thr: float = 0.3,
    max_images: int = 100,
    ann_file: str | None = None,
    picture: bytes | None = None,
    command: str | None = None,
) -> str:
    """The page's text.

    Args:
        forms: A, what else was timed, and B, as :meth:`Form.row` has them.
        classes: by label.
        images: all; of these `max_images` are shown, those of the largest disagreement.
        folder: of the images.
        score_thr: the least score that is drawn at first.
        ann_file: with what is annotated in the images.
        picture: PNG of a conversion's layers.
        command: that trains B on.
    """
    sides = [_side(name, form) for name, form in zip('AB', (forms[0], forms[-1]))]
    start = min(range(len(THRESHOLDS)), key=lambda i: abs(THRESHOLDS[i] - score_thr))
    shown = sorted(images, key=lambda image: -image.disagreement[start])
    shown = shown[:max_images]
    # Annotations may have classes that no detector knows.
    names = dict.fromkeys(classes)
    names |= dict.fromkeys(n for i in shown for n, _ in i.truth or ())
    names = list(names)
    data = dict(
        thresholds=THRESHOLDS,
        start=start,
        classes=names,
        sides=[side['title'] for side in sides],
        images=[_image(image, names, folder) for image in shown],
    )
    parts = files(__package__) / 'compare_page'
    style, script, page = (
        (parts / name).read_text() for name in ('page.css', 'page.js', 'page.html')
    )
    policy = (
        "default-src 'none'",
        'img-src data: blob:',
        f"style-src '{_digest(style)}'",
        f"script-src '{_digest(script)}'",
    )
    environment = Environment(autoescape=True, trim_blocks=True, undefined=StrictUndefined)
    return environment.from_string(page).render(
        folder=folder,
        ann_file=ann_file,
        rounds=len(forms[0]['times']),
        title=' against '.join(side['title'] for side in sides),
        policy=Markup('; '.join(policy)),
        style=style,
        script=script,
        # A file's name must not end the element.
        data=json.dumps(data, separators=(',', ':')).replace('<', '\\u003c'),
        sides=sides,
        rows=list(_rows(sides)),
        images=images,
        shown=len(shown),
        known=sum(image.truth is not None for image in images),
        shapes=' and '.join(dict.fromkeys('{} × {}'.format(*side['shape']) for side in sides)),
        machine=_machine(),
        forms=forms if len(forms) > 2 else (),
        metrics=list(forms[0]['metrics']),
        picture=picture and base64.b64encode(picture).decode(),
        command=command,
    )


def _digest(text: str) -> str:
    """How a Content-Security-Policy names an inline element."""
    digest = hashlib.sha256(text.encode()).digest()
    return f'sha256-{base64.b64encode(digest).decode()}'


def _image(image: Compared, classes: list[str], folder: Path) -> dict:
    numbers = {name: number for number, name in enumerate(classes)}
    truth = None
    if image.truth is not None:
        truth = [[numbers[name], *(round(value, 1) for value in box)] for name, box in image.truth]
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
        found['labels'].tolist(), found['boxes'].tolist(), found['scores'].tolist()
    ):
        if score >= THRESHOLDS[0]:
            box = (round(value, 1) for value in (x1, y1, x2 - x1, y2 - y1))
            entries.append([label, *box, round(score, 3)])
    return entries


def _side(name: str, form: Mapping[str, Any]) -> dict[str, Any]:
    return dict(form, name=name, title=f'{name}: {Path(form["config"]).stem}')


def _rows(sides: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, list[str], str]]:
    """Of the table: what is measured, A and B, B against A."""
    yield 'Computes', [side['form'] for side in sides], ''
    yield 'HetConv layers', [str(side['het_layers']) for side in sides], ''
    sizes = [side['parameters'] for side in sides]
    yield 'Parameters', list(map(with_unit, sizes)), _ratio(sizes)
    macs = [side['macs'] for side in sides]
    yield (
        'Multiply-adds (MACs)',
        ['not counted' if m is None else with_unit(m) for m in macs],
        '' if None in macs else _ratio(macs),
    )
    spreads = [_spread(side['times']) for side in sides]
    yield (
        'Time of an image, median (10 % to 90 %)',
        ['{:.1f} ms ({:.1f} to {:.1f})'.format(*spread) for spread in spreads],
        _ratio([middle for middle, _, _ in spreads]),
    )
    for name in sides[0]['metrics']:
        a, b = (side['metrics'][name] for side in sides)
        if min(a, b) >= 0:  # else no box of that size is annotated
            yield name, [f'{a:.3f}', f'{b:.3f}'], f'{b - a:+.3f}'


def _spread(times: Sequence[float]) -> tuple[float, float, float]:
    """Median, 10 % and 90 % quantile, milliseconds."""
    deciles = quantiles(times, n=10, method='inclusive')
    return median(times), deciles[0], deciles[-1]


def _ratio(values: Sequence[float]) -> str:
    return f'× {values[1] / values[0]:.2f}' if values[0] else ''


def _machine() -> str:
    where = machine()
    return (
        f'{where["machine"]}, torch {where["torch"]}, mmdet_hetconv {__version__}, {where["date"]}'
    )
