"""The page of all measured results, from the rows of benchmarks/results.

Every number of the page is a value of a CSV file, or a mean, a difference or
a ratio of such values.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median

from ..engine.errors import UserError
from ..table import markdown_table, read_rows, share_saved, with_unit
from . import result_plots
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

CLASSIFIER = ('network', 'width', 'epochs', 'batch_size', 'lr', 'amp')
CONVERSION = ('network', 'width', 'dense_epochs', 'batch_size', 'lr', 'amp')
CONVERSION += ('calibration_images', 'seed')
DETECTOR = ('detector', 'data', 'network', 'image', 'where', 'epochs')
DETECTOR += ('batch_size',)
AIM = 0.5  # points below dense that still count as the same accuracy


def accuracy_section(folder: Path, out: Path) -> Iterator[str]:
    path = folder / 'cifar10.csv'
    rows = read_rows(path)
    if not rows:
        yield 'Not measured yet (`benchmarks/cifar10.py`).\n'
        return
    groups = grouped(rows, CLASSIFIER)
    for values, found in groups.items():
        check_dense(by_macs(found), f'{path}, {setting(CLASSIFIER, values)}')
    published = read_rows(folder / 'published.csv')
    result_plots.accuracy(groups, published, out / 'accuracy.png')
    yield '![accuracy against MACs](accuracy.png)\n'
    if published:
        sources = dict.fromkeys(
            row['source'].rpartition(',')[0] for row in published
        )
        yield (
            f'Hollow: published (`published.csv`: {"; ".join(sources)}), with '
            'the schedule of the paper and the full width.\n'
        )
    for values, found in groups.items():
        yield f'### {setting(CLASSIFIER, values)}\n'
        yield from accuracy_tables(found)
        command = flags(found[0], CLASSIFIER)
        yield origin(
            path,
            found,
            f'python benchmarks/cifar10.py --data DIR {command} \\\n    '
            f'{conv_options(found)} --seeds {seeds_of(found)}',
        )
    yield '### Train and test curves\n'
    for index, (values, found) in enumerate(groups.items()):
        name = f'curves_{index}.png'
        result_plots.curves(found, setting(CLASSIFIER, values), out / name)
        yield f'![{setting(CLASSIFIER, values)}]({name})\n'
    yield (
        f'From `{path.name}`. Accuracy on the training set is taken while '
        'it is trained on, augmented, with dropout.\n'
    )


def accuracy_tables(found: Sequence[Row]) -> Iterator[str]:
    """The table of one setting, who stays behind, and rivals beside het."""
    convs = by_macs(found)
    dense = convs['dense']
    body, behind = [], []
    for conv, rows in convs.items():
        less = against(rows, dense, 'final')
        cost = rows[0]
        body.append(
            (
                conv,
                with_unit(number(cost['macs'])),
                share_saved(number(dense[0]['macs']), number(cost['macs'])),
                with_unit(number(cost['parameters'])),
                mean_and_spread(column(rows, 'final')),
                '' if conv == 'dense' else f'{less:+.2f}',
                mean_and_spread(column(rows, 'best')),
                mean_and_spread(column(rows, 'train')),
                seeds_of(rows),
            )
        )
        if less < -AIM and conv.startswith('het'):
            behind.append(f'{conv} ({less:+.2f})')
    head = ('convolution', 'MACs', 'saved', 'parameters', 'test %')
    head += ('against dense', 'best %', 'train %', 'seeds')
    yield markdown_table(head, body) + '\n'
    if behind:
        yield (f'More than {AIM} points below dense: {", ".join(behind)}.\n')
    hets = [conv for conv in convs if conv.startswith('het')]
    rivals = [conv for conv in convs if conv not in hets and conv != 'dense']
    if hets and rivals:
        yield 'The rivals beside the HetConv with the nearest MACs:\n'
        body = []
        for rival in rivals:
            macs = number(convs[rival][0]['macs'])
            near = min(
                hets, key=lambda het: abs(number(convs[het][0]['macs']) - macs)
            )
            body.append(
                (
                    rival,
                    with_unit(macs),
                    mean_and_spread(column(convs[rival], 'final')),
                    near,
                    with_unit(number(convs[near][0]['macs'])),
                    mean_and_spread(column(convs[near], 'final')),
                    f'{against(convs[near], convs[rival], "final"):+.2f}',
                )
            )
        head = ('rival', 'MACs', 'test %', 'HetConv', 'MACs', 'test %')
        yield markdown_table((*head, 'HetConv better by'), body) + '\n'


def overfitting_section(folder: Path, out: Path) -> Iterator[str]:
    path = folder / 'overfitting.csv'
    rows = read_rows(path)
    if not rows:
        yield 'Not measured yet (`benchmarks/overfitting.py`).\n'
        return
    for values, found in grouped(rows, CLASSIFIER).items():
        title = setting(CLASSIFIER, values)
        body = []
        shares = sorted({row['share'] for row in found}, key=number)
        for share in reversed(shares):
            part = [row for row in found if row['share'] == share]
            convs = by_macs(part)
            dense = check_dense(convs, f'{path}, {title}, share {share}')
            for conv, mine in convs.items():
                less = against(mine, dense, 'gap')
                body.append(
                    (
                        conv,
                        f'{100 * number(share):g} %',
                        mine[0]['images'],
                        mean_and_spread(column(mine, 'train')),
                        mean_and_spread(column(mine, 'final')),
                        mean_and_spread(column(mine, 'gap')),
                        '' if conv == 'dense' else f'{less:+.2f}',
                        seeds_of(mine),
                    )
                )
        yield f'### {title}\n'
        head = ('convolution', 'share', 'images', 'train %', 'test %')
        head += ('gap', 'gap against dense', 'seeds')
        yield markdown_table(head, body) + '\n'
        command = flags(found[0], CLASSIFIER)
        yield origin(
            path,
            found,
            f'python benchmarks/overfitting.py --data DIR {command} \\\n    '
            f'{conv_options(found)} '
            f'{options(share=[row["share"] for row in found])} '
            f'--seeds {seeds_of(found)}',
        )
    yield (
        'All see equally many images, `epochs` times the whole training '
        'set: a small share is passed over more often. Train: on the images '
        'learnt, not augmented; gap: train less test.\n'
    )


def conversion_section(folder: Path, out: Path) -> Iterator[str]:
    path = folder / 'conversion_cifar.csv'
    rows = read_rows(path)
    if not rows:
        yield 'Not measured yet (`benchmarks/conversion_cifar.py`).\n'
        return
    for values, found in grouped(rows, CONVERSION).items():
        title = setting(CONVERSION, values)
        table = {
            (row['way'], row['p'], row['tuned_epochs']): row['accuracy']
            for row in found
        }
        dense = table.get(('dense', '1', '0'))
        if dense is None:
            raise UserError(
                f'{path}, {title}: no row of the dense network; run '
                'benchmarks/conversion_cifar.py with --fine-tune 0'
            )
        yield f'### {title}\n\nThe dense network: {dense} %. Converted:\n'
        yield from conversion_tables(table, number(dense))
        keys = ('network', 'width', 'batch_size', 'lr', 'seed', 'amp')
        parts = [row['p'] for row in found if row['way'] != 'dense']
        layers = [part for part in dict.fromkeys(parts) if '=' in part]
        tuned = options(
            fine_tune=[
                row['tuned_epochs'] for row in found if row['way'] != 'scratch'
            ]
        )
        command = (
            f'python benchmarks/conversion_cifar.py --data DIR '
            f'{flags(found[0], keys)} \\\n    --epochs {values[2]} '
            f'--calib {values[6]} {tuned}'
        )
        scratch = any(row['way'] == 'scratch' for row in found)
        lines = [
            f'{command} \\\n    '
            + options(p=[part for part in parts if '=' not in part])
            + ' --scratch' * scratch
        ]
        lines += [f'{command} \\\n    --layers {part}' for part in layers]
        yield origin(path, found, '\n'.join(lines))


def conversion_tables(
    table: dict[tuple[str, str, str], str], dense: float
) -> Iterator[str]:
    """Without training by way and P, then all that was trained on."""
    parts = {p for _, p, tuned in table if tuned == '0' and '=' not in p}
    parts = sorted(parts - {'1'}, key=number)
    ways = dict.fromkeys(way for way, p, _ in table if p in parts)
    body = [
        (way, *(table.get((way, p, '0'), '') for p in parts))
        for way in ways
        if any((way, p, '0') in table for p in parts)
    ]
    yield (
        markdown_table(
            ('no training, test %', *(f'P={p}' for p in parts)), body
        )
        + '\n'
    )
    body = []
    for (way, p, tuned), accuracy in table.items():
        if way == 'dense' or (tuned == '0' and p in parts):
            continue
        same = table.get(('dense', '1', tuned))
        body.append(
            (
                way,
                p,
                tuned,
                accuracy,
                f'{number(accuracy) - dense:+.2f}',
                f'{number(accuracy) - number(same):+.2f}'
                if same and tuned != '0'
                else '',
            )
        )
    if body:
        head = ('conversion', 'P', 'epochs trained', 'test %')
        head += ('against dense', 'against dense trained on as long')
        yield markdown_table(head, body) + '\n'
        kept = {
            tuned: accuracy
            for (way, _, tuned), accuracy in table.items()
            if way == 'dense' and tuned != '0'
        }
        for tuned, accuracy in kept.items():
            more = setting(['epochs'], [tuned])
            yield f'Dense, trained on for {more}: {accuracy} %.\n'


def cost_section(folder: Path, out: Path) -> Iterator[str]:
    path = folder / 'conversion_cost.csv'
    rows = read_rows(path)
    if not rows:
        yield 'Not measured yet (`benchmarks/conversion_cost.py`).\n'
        return
    keys = ('network', 'p', 'images', 'permuted', 'layers', 'seconds')
    keys += ('cpu_seconds', 'peak_gib')
    head = [key.replace('_', ' ') for key in keys]
    body = [[row[key] for key in keys] for row in rows]
    yield markdown_table(head, body) + '\n'
    commands = [
        'python benchmarks/conversion_cost.py '
        + flags(row, ('network', 'p', 'images'))
        + ' --permute' * (row['permuted'] == 'True')
        for row in rows
    ]
    yield origin(path, rows, '\n'.join(commands))


def detection_section(folder: Path, out: Path) -> Iterator[str]:
    path = folder / 'detection.csv'
    rows = read_rows(path)
    if not rows:
        yield 'Not measured yet (`benchmarks/detection.py`).\n'
        return
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
    result_plots.detection(plotted, out / 'detection.png')
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
    return (
        f'python benchmarks/detection.py --data-root {row["data"]} {words} '
        f'\\\n    {conv_options(found)} --seeds {seeds_of(found)}{convert}'
    )


def latency_section(folder: Path, out: Path) -> Iterator[str]:
    files = {
        path: rows
        for path in sorted(folder.glob('*.csv'))
        if (rows := read_rows(path))
    }
    detectors = {p: rows for p, rows in files.items() if 'form' in rows[0]}
    layers = {p: rows for p, rows in files.items() if 'time gain' in rows[0]}
    if not detectors and not layers:
        yield 'Not measured yet (`tools/benchmark.py`).\n'
    for path, rows in detectors.items():
        for config in dict.fromkeys(row['config'] for row in rows):
            forms = {row['form'] for row in rows if row['config'] == config}
            if not any(form.startswith('dense') for form in forms):
                raise UserError(
                    f'{path}: {config} has no row of the dense detector'
                )
        head = ('config', 'form', 'images', 'ms', 'p10', 'p90', 'G MACs')
        head += ('time gain', 'efficiency')
        keys = ('config', 'form', 'batch', 'ms', 'p10', 'p90', 'gmacs')
        keys += ('gain', 'efficiency')
        body = [[row[key] for key in keys] for row in rows]
        yield markdown_table(head, body) + '\n'
        name = f'benchmarks/results/{path.stem}'
        yield origin(
            path,
            rows,
            f'python tools/benchmark.py configs/{rows[0]["config"]}.py '
            f'--batch {rows[0]["batch"]} --out {name}',
        )
    for path, rows in layers.items():
        body = [
            (
                f'P={p}',
                len(mine),
                f'{min(column(mine, "time gain")):.2f}',
                f'{median(column(mine, "time gain")):.2f}',
                f'{max(column(mine, "time gain")):.2f}',
                f'{median(column(mine, "efficiency")):.2f}',
            )
            for (p,), mine in grouped(rows, ['p']).items()
        ]
        head = ('layers, against the best dense', 'layers', 'least gain')
        head += ('median gain', 'largest gain', 'median efficiency')
        yield markdown_table(head, body) + '\n'
        name = f'benchmarks/results/{path.stem}'
        yield origin(path, rows, f'python benchmarks/latency.py --out {name}')


SECTIONS: dict[str, Callable[[Path, Path], Iterator[str]]] = {
    'CIFAR-10: accuracy against MACs': accuracy_section,
    'CIFAR-10: over-fitting': overfitting_section,
    'CIFAR-10: dense weights converted': conversion_section,
    'Calibrated conversion: time and memory': cost_section,
    'Detection': detection_section,
    'Time': latency_section,
}


def write_results(folder: str | Path, out: str | Path) -> Path:
    """Draw the pictures and write the page that shows them.

    Args:
        folder: holds the CSV files that the scripts in benchmarks/ append to.
            What is missing, the page says is not measured.
        out: folder of README.md and the pictures.

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
        '# Results\n',
        'Written by `python tools/report.py` from the CSV files of '
        '`benchmarks/results`: do not edit it. dwc is depth-wise, gwcN '
        'group-wise with N groups, each with a point-wise convolution; hetP '
        'is HetConv. ± is the standard deviation over seeds.\n',
    ]
    for title, section in SECTIONS.items():
        parts += [f'## {title}\n', *section(folder, out)]
    page = out / 'README.md'
    page.write_text('\n'.join(parts))
    return page
