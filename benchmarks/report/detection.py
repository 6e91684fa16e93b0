"""mAP of detectors against MACs and time, from scratch and converted."""

import re
from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter
from pathlib import Path

from mmdet_hetconv.utils.table import markdown_table, read_rows, with_unit

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

NETWORK = ('detector', 'data', 'network', 'image', 'where', 'conv', 'machine')
SETTING = ('network', 'image', 'where', 'epochs', 'batch_size', 'lr')
SETTING += ('lr_by_density', 'amp')


def section(path: Path, rows: Sequence[Row], out: Path) -> Iterator[str]:
    times = path.with_name(f'{path.stem}_latency.csv')
    yield (
        'Latency: of backbone, neck and dense head, deployed, one image; from '
        f'`{times.name}`, by the same commands as the rest.\n'
    )
    rows = _with_latency(rows, read_rows(times))
    pairs = grouped(rows, ('detector', 'data'))
    for (detector, data), found in pairs.items():
        title = f'{detector} on {data}'
        settings = {
            setting(SETTING, values): mine for values, mine in grouped(found, SETTING).items()
        }
        scratch = {
            name: by_macs([row for row in mine if row['start'] == 'scratch'])
            for name, mine in settings.items()
        }
        for name, convs in scratch.items():
            check_dense(convs, f'{path}, {title}, {name}')
        picture = f'detection_{detector}_{data}.png'
        plots.detection(scratch, title, out / picture)
        yield f'### {title}\n'
        yield f'![{title}: mAP against MACs and latency]({picture})\n'
        for name, mine in settings.items():
            yield f'#### {name}\n'
            yield _from_scratch(scratch[name])
            converted = [row for row in mine if row['start'] != 'scratch']
            if converted:
                yield 'Converted from the dense detector:\n'
                yield _converted(converted, scratch[name]['dense'])
            yield origin(path, mine, detection_command(mine))


def distilled(path: Path, rows: Sequence[Row], out: Path) -> Iterator[str]:
    """Detectors converted without labels, then trained on for some epochs."""
    yield (
        "'On features': before the predictions of dense heads were compared, too; "
        'the command makes the other rows.\n'
    )
    titles = ('detector', 'data', *SETTING)
    for values, mine in grouped(rows, titles).items():
        scratch = [row for row in mine if row['start'] == 'scratch']
        yield f'### Distilled: {values[0]} on {values[1]}, {setting(SETTING, values[2:])}\n'
        yield _converted(mine, scratch)
        yield origin(path, mine, detection_command(mine))


def _with_latency(rows: Sequence[Row], times: Sequence[Row]) -> list[Row]:
    """Rows of trainings, each with what its network took on its machine."""
    network = itemgetter(*NETWORK)
    known = {network(row): row['latency_ms'] for row in times}
    return [row | dict(latency_ms=known.get(network(row), '')) for row in rows]


def _from_scratch(convs: Mapping[str, Sequence[Row]]) -> str:
    head = ('convolution', 'MACs', 'parameters', 'latency, ms', 'mAP')
    head += ('against dense', 'mAP@50', 'seeds')
    body = [
        (
            conv,
            with_unit(number(rows[0]['macs'])),
            with_unit(number(rows[0]['parameters'])),
            rows[0]['latency_ms'],
            mean_and_spread(column(rows, 'mAP'), 1),
            '' if conv == 'dense' else f'{against(rows, convs["dense"], "mAP"):+.1f}',
            mean_and_spread(column(rows, 'mAP_50'), 1),
            seeds_of(rows),
        )
        for conv, rows in convs.items()
    ]
    return markdown_table(head, body) + '\n'


def _converted(rows: Sequence[Row], dense: Sequence[Row]) -> str:
    starts = grouped(rows, ('conv', 'start', 'tuned_epochs'))
    head = ('convolution', 'start', 'epochs trained', 'mAP')
    head += ('against dense', 'seeds')
    body = [
        (
            *start,
            mean_and_spread(column(mine, 'mAP'), 1),
            f'{against(mine, dense, "mAP"):+.1f}',
            seeds_of(mine),
        )
        for start, mine in starts.items()
    ]
    return markdown_table(head, body) + '\n'


def detection_command(found: Sequence[Row]) -> str:
    row = found[0]
    names = ('detector', 'where', 'epochs', 'batch_size', 'lr')
    words = flags(row, (*names, 'lr_by_density', 'amp'))
    words += ' --reduced' * (row.get('network') == 'reduced')
    if 'x' in row.get('image', ''):
        words += f' --image {row["image"].replace("x", " ")}'
    starts = {'scratch', 'dense'}
    parts = [r['conv'][3:] for r in found if r['start'] not in starts]
    convert = f' {options(convert=parts)}' if parts else ''
    fitted = [r for r in found if r.get('calib')]
    if fitted:
        convert += f' {flags(fitted[-1], ["calib"])}'
    # Ways of today; others have words behind their names.
    ways = [r['start'] for r in fitted if re.fullmatch(r'distilled\w*', r['start'])]
    tuned = [r for r in found if r['start'] in ways and r['tuned_lr']]
    if ways:
        convert += f' {options(ways=ways)}'
    if tuned:
        share = number(tuned[-1]['tuned_lr']) / number(row['lr'])
        convert += f' --tuned-epochs {tuned[-1]["tuned_epochs"]} --tuning-rate {share:g}'
    return (
        f'python benchmarks/detection.py --data-root {row["data"]} {words} '
        f'\\\n    {conv_options(found)} --seeds {seeds_of(found)}{convert}'
    )
