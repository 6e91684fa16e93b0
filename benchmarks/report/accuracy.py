"""CIFAR-10 accuracy against MACs: networks, P and rivals."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from mmdet_hetconv.utils.table import markdown_table, read_rows, share_saved, with_unit

from . import plots
from .rows import (
    CLASSIFIER,
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
    origin,
    seeds_of,
    setting,
)

AIM = 0.5  # points below dense that still count as the same accuracy


def section(path: Path, rows: Sequence[Row], out: Path) -> Iterator[str]:
    groups = grouped(rows, CLASSIFIER)
    for values, found in groups.items():
        check_dense(by_macs(found), f'{path}, {setting(CLASSIFIER, values)}')
    published = read_rows(path.with_name('published.csv'))
    plots.accuracy(groups, published, out / 'accuracy.png')
    yield '![accuracy against MACs](accuracy.png)\n'
    if published:
        sources = dict.fromkeys(row['source'].rpartition(',')[0] for row in published)
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
        name, title = f'curves_{index}.png', setting(CLASSIFIER, values)
        plots.curves(by_macs(found), title, out / name)
        yield f'![{title}]({name})\n'
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
            near = min(hets, key=lambda het: abs(number(convs[het][0]['macs']) - macs))
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
