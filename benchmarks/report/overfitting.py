"""The gap between training and test set, by share of the training set."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from mmdet_hetconv.utils.table import markdown_table

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
    options,
    origin,
    seeds_of,
    setting,
)


def section(path: Path, rows: Sequence[Row], out: Path) -> Iterator[str]:
    for index, (values, found) in enumerate(grouped(rows, CLASSIFIER).items()):
        title = setting(CLASSIFIER, values)
        body = []
        shares = {share: by_macs(part) for (share,), part in grouped(found, ('share',)).items()}
        shares = dict(sorted(shares.items(), key=lambda x: -number(x[0])))
        for share, convs in shares.items():
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
        picture = f'overfitting_{index}.png'
        plots.generalisation(shares, title, out / picture)
        yield f'![test against training accuracy]({picture})\n'
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
        'learnt, not augmented; gap: train less test. The picture has the '
        'accuracy while training, augmented and with dropout, instead (grey: '
        'no gap); which network generalises better is read at equal training '
        'accuracy.\n'
    )
