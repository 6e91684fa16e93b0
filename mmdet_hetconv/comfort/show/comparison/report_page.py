"""The report of ``workflow.slim`` as a page."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ....utils.files import write_whole
from ....workflow.slimming.slim import PAGE, REPORT
from ..reading import IN_COLOUR
from .disagreement import disagreement
from .layers_picture import draw_layers
from .page import THRESHOLDS, Compared, render_page


def write_report_page(folder: str | Path) -> Path:
    """Write index.html of a folder that ``workflow.slim`` has filled.

    The dense detector as it was given is A, what is shipped is B.

    Returns:
        Path: of the page.
    """
    folder = Path(folder).expanduser().resolve()
    report = json.loads((folder / REPORT).read_text())
    layers = report['layers']
    page = render_page(
        report['forms'],
        report['classes'],
        [_compared(folder / 'images', shown) for shown in report['images']],
        folder / 'images',
        picture=draw_layers(
            {name: layer['p'] for name, layer in layers.items()},
            {name: layer['error'] or 0.0 for name, layer in layers.items()},
        ),
        command=f'python tools/train.py {folder / "train_on.py"}',
    )
    write_whole(folder / PAGE, page.encode())
    return folder / PAGE


def _compared(folder: Path, shown: dict[str, Any]) -> Compared:
    height, width = IN_COLOUR.file(folder / shown['name']).shape[:2]
    found = [_boxes(rows) for rows in shown['found']]
    return Compared(
        shown['name'],
        (width, height),
        None,
        found,
        [disagreement(*found, score) for score in THRESHOLDS],
    )


def _boxes(rows: list[list[float]]) -> dict[str, Tensor]:
    """Rows of label, x, y, width, height, score as what the page draws."""
    table = torch.tensor(rows).reshape(-1, 6)
    corners = torch.cat([table[:, 1:3], table[:, 1:3] + table[:, 3:5]], dim=1)
    return dict(boxes=corners, scores=table[:, 5], labels=table[:, 0].long())
