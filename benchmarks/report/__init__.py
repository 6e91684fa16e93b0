"""The page of all measured results, from the rows of benchmarks/results.

Every number of the page is a value of a CSV file, or a mean, a difference or
a ratio of such values. Each module here writes one section of it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmdet_hetconv.utils.errors import UserError
from mmdet_hetconv.utils.table import read_rows

from . import accuracy, conversion, cost, detection, distillation, latency, overfitting
from .rows import Row

__all__ = ['write_results']


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        files: pattern of the CSV files it is about.
        script: what appends to them.
        write: the lines, from a file, its rows and the folder of pictures.
    """

    title: str
    files: str
    script: str
    write: Callable[[Path, Sequence[Row], Path], Iterator[str]]

    def lines(self, folder: Path, out: Path) -> Iterator[str]:
        yield f'## {self.title}\n'
        written = [
            line
            for path in sorted(folder.glob(self.files))
            if (rows := read_rows(path))
            for line in self.write(path, rows, out)
        ]
        yield from written or [f'Not measured yet (`{self.script}`).\n']


SECTIONS = (
    Section(
        'CIFAR-10: accuracy against MACs', 'cifar10.csv', 'benchmarks/cifar10.py', accuracy.section
    ),
    Section(
        'CIFAR-10: over-fitting',
        'overfitting.csv',
        'benchmarks/overfitting.py',
        overfitting.section,
    ),
    Section(
        'CIFAR-10: dense weights converted',
        'conversion_cifar.csv',
        'benchmarks/conversion_cifar.py',
        conversion.section,
    ),
    Section(
        'CIFAR-10: trained networks distilled, without labels',
        'distillation_cifar.csv',
        'benchmarks/distillation_cifar.py',
        distillation.section,
    ),
    Section(
        'CIFAR-10: trained networks fine-tuned with labels and teacher',
        'finetuning_cifar.csv',
        'benchmarks/finetuning_cifar.py',
        distillation.fine_tuned,
    ),
    Section(
        'Calibrated conversion: time and memory',
        'conversion_cost.csv',
        'benchmarks/conversion_cost.py',
        cost.section,
    ),
    Section('Detection', 'detection.csv', 'benchmarks/detection.py', detection.section),
    Section(
        'Detection: distilled without labels, then trained on',
        'detection_distilled.csv',
        'benchmarks/detection.py',
        detection.distilled,
    ),
    Section('Time of detectors', '*.csv', 'tools/benchmark.py', latency.detectors),
    Section('Time of layers', '*.csv', 'benchmarks/latency.py', latency.layers),
)


def write_results(folder: str | Path, out: str | Path) -> Path:
    """Draw the pictures and write the page that shows them.

    Args:
        folder: holds the CSV files that the scripts in benchmarks/ append to.
            What is missing, the page says is not measured.
        out: folder of all.md and the pictures.

    Returns:
        The page.

    Raises:
        UserError: no such folder, or a table without its dense row.
    """
    folder, out = Path(folder), Path(out)
    if not folder.is_dir():
        raise UserError(f'results: {folder} is not a folder')
    out.mkdir(parents=True, exist_ok=True)
    parts = [
        '# All results\n',
        'Written by `python -m benchmarks.report` from the CSV files of '
        '`benchmarks/results`: do not edit it. dense is the network as it is '
        '(MobileNet: its depth-wise pairs); dwc is depth-wise, gwcN '
        'group-wise with N groups, each with a point-wise convolution; hetP '
        'is HetConv. ± is the standard deviation over seeds, a difference '
        'is the mean over the seeds that both have.\n',
    ]
    for section in SECTIONS:
        parts += section.lines(folder, out)
    page = out / 'all.md'
    page.write_text('\n'.join(parts))
    return page
