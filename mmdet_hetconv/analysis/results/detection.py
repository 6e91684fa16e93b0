"""mAP of detectors against MACs and time, from scratch and converted."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from ...table import markdown_table, with_unit
from . import plots
from .rows import (
    Row,
    against,
    by_macs,
    check_dense,
    column,
    conv_options,
    flags,
    grouped,
    mean_and_spread,
    number,
    options,
    origin,
    seeds_of,
    setting,
)

DETECTOR = ('detector', 'data', 'network', 'image', 'where', 'epochs')
DETECTOR += ('batch_size', 'lr', 'amp')


def section(path: Path, rows: Sequence[Row], out: Path) -> Iterator[str]:
    plotted = {}
    for values, found in grouped(rows, DETECTOR).items():
        title = setting(DETECTOR, values)
        scratch = [row for row in found if row['start'] == 'scratch']
        convs = by_macs(scratch)
        dense = check_dense(convs, f'{path}, {title}')
        plotted[title] = convs
        body = [
            (
                conv,
                with_unit(number(mine[0]['macs'])),
                with_unit(number(mine[0]['parameters'])),
                mean_and_spread(column(mine, 'latency_ms')[:1]),
                mean_and_spread(column(mine, 'mAP'), 1),
                ''
                if conv == 'dense'
                else f'{against(mine, dense, "mAP"):+.1f}',
                mean_and_spread(column(mine, 'mAP_50'), 1),
                seeds_of(mine),
            )
            for conv, mine in convs.items()
        ]
        head = ('convolution', 'MACs', 'parameters', 'latency, ms', 'mAP')
        head += ('against dense', 'mAP@50', 'seeds')
        yield f'### {title}\n'
        yield markdown_table(head, body) + '\n'
        converted = [row for row in found if row['start'] != 'scratch']
        if converted:
            keys = ('conv', 'start', 'tuned_epochs')
            body = [
                (
                    conv,
                    start,
                    tuned,
                    mean_and_spread(column(mine, 'mAP'), 1),
                    f'{against(mine, dense, "mAP"):+.1f}',
                    seeds_of(mine),
                )
                for (conv, start, tuned), mine in grouped(
                    converted, keys
                ).items()
            ]
            yield 'Converted from the dense detector:\n'
            head = ('convolution', 'start', 'epochs trained', 'mAP')
            head += ('against dense', 'seeds')
            yield markdown_table(head, body) + '\n'
        yield origin(path, found, detection_command(found))
    plots.detection(plotted, out / 'detection.png')
    yield '![mAP against MACs and latency](detection.png)\n'


def detection_command(found: Sequence[Row]) -> str:
    row = found[0]
    words = flags(row, ('detector', 'where', 'epochs', 'batch_size', 'lr'))
    words += ' --reduced' * (row.get('network') == 'reduced')
    if 'x' in row.get('image', ''):
        words += f' --image {row["image"].replace("x", " ")}'
    starts = {'scratch', 'dense'}
    parts = [r['conv'][3:] for r in found if r['start'] not in starts]
    convert = f' {options(convert=parts)}' if parts else ''
    fitted = [r for r in found if r.get('calib')]
    if fitted:
        convert += f' {flags(fitted[0], ["calib"])}'
    return (
        f'python benchmarks/detection.py --data-root {row["data"]} {words} '
        f'\\\n    {conv_options(found)} --seeds {seeds_of(found)}{convert}'
    )
