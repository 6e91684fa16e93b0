"""Pictures of measured results: accuracy, curves, mAP, against their cost."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from statistics import mean

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.ticker import LogLocator  # noqa: E402
from matplotlib.typing import ColorType  # noqa: E402

Row = Mapping[str, str]
RIVALS = {'gwc': 's', 'dwc': '^'}


def marker_of(conv: str) -> str:
    """A star for dense, a disc for HetConv, others for the rivals."""
    if conv == 'dense':
        return '*'
    return RIVALS.get(conv[:3], 'o')


def _means(rows: Sequence[Row], key: str) -> dict[str, float]:
    """Mean of a column for each convolution."""
    values: dict[str, list[float]] = {}
    for row in rows:
        values.setdefault(row['conv'], []).append(float(row[key]))
    return {conv: mean(found) for conv, found in values.items()}


def _save(figure, path: Path) -> None:
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _scatter(
    axes: Axes,
    points: Mapping[str, tuple[float, float]],
    label: str,
    color: ColorType,
    hollow: bool = False,
) -> None:
    """One marker per convolution, with its name; a line joins the HetConv."""
    line = sorted(at for conv, at in points.items() if marker_of(conv) in ('o', '*'))
    if line:
        axes.plot(*zip(*line), '-', color=color, lw=0.8, alpha=0.6)
    for conv, (x, y) in points.items():
        axes.plot(
            x,
            y,
            marker_of(conv),
            color=color,
            markersize=11 if conv == 'dense' else 7,
            markerfacecolor='none' if hollow else color,
        )
        axes.annotate(
            conv,
            (x, y),
            xytext=(2, 6),
            textcoords='offset points',
            fontsize=7,
            rotation=40,
            color=color,
        )
    style = dict(marker='o', color=color, lw=0.8, label=label)
    axes.plot([], [], markerfacecolor='none' if hollow else color, **style)


def accuracy(groups: Mapping[tuple, Sequence[Row]], published: Sequence[Row], path: Path) -> None:
    """Accuracy against MACs; published points are hollow.

    On the right both as differences from the dense network, by which
    networks and schedules that differ can be compared.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 5), layout='constrained')
    sets = []
    for values, rows in groups.items():
        network, width, epochs, *_ = values
        label = f'{network}, width {width}, {epochs} epochs'
        accuracies = _means(rows, 'final')
        macs = _means(rows, 'macs')
        sets.append((label, accuracies, macs, False))
    for network in dict.fromkeys(row['network'] for row in published):
        mine = [row for row in published if row['network'] == network]
        accuracies = {r['convolution']: float(r['accuracy']) for r in mine}
        macs = {row['convolution']: float(row['macs']) for row in mine}
        sets.append((f'{network}, published', accuracies, macs, True))
    for index, (label, accuracies, macs, hollow) in enumerate(sets):
        color = f'C{index}'
        points = {c: (macs[c] / 1e6, accuracies[c]) for c in accuracies}
        _scatter(left, points, label, color, hollow)
        points = {
            conv: (macs[conv] / macs['dense'], accuracies[conv] - accuracies['dense'])
            for conv in accuracies
        }
        _scatter(right, points, label, color, hollow)
    left.set(xscale='log', xlabel='MACs, M', ylabel='test accuracy, %')
    right.set(xscale='log')
    for axes in (left, right):
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter('{x:g}')
        axes.xaxis.set_minor_formatter('')
        axes.margins(0.08, 0.12)
    right.axhline(0, color='grey', lw=0.5)
    right.set(xlabel='MACs / MACs of dense', ylabel='test accuracy less that of dense, points')
    left.legend(fontsize=8)
    _save(figure, path)


def curves(convs: Mapping[str, Sequence[Row]], title: str, path: Path) -> None:
    """Accuracy on test and training set after each epoch.

    Where there are several seeds their mean is drawn.

    Args:
        convs: rows by convolution, dense first.
        title: what all of them have in common.
        path: the picture.
    """
    figure, panels = plt.subplots(1, 2, figsize=(12, 4.5), sharey=True, layout='constrained')
    for index, (conv, rows) in enumerate(convs.items()):
        epochs = list(map(int, rows[0]['curve_epoch'].split()))
        for axes, key in zip(panels, ('curve_test', 'curve_train')):
            axes.plot(epochs, _mean_curve(rows, key), **_line(conv, index))
    for axes, name in zip(panels, ('test', 'training')):
        axes.set(xlabel='epoch', title=f'{name} set')
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel('accuracy, %')
    panels[0].legend(fontsize=8, ncols=2)
    figure.suptitle(title, fontsize=10)
    _save(figure, path)


def generalisation(
    shares: Mapping[str, Mapping[str, Sequence[Row]]], title: str, path: Path
) -> None:
    """Test accuracy against training accuracy while the network learns.

    Networks that learn at different speeds can be compared where their
    training accuracy is the same. Where there are several seeds their means
    are drawn.

    Args:
        shares: rows by convolution, dense first, by share of the training
            set; each share is a panel.
        title: what all of them have in common.
        path: the picture.
    """
    figure, panels = plt.subplots(
        1, len(shares), figsize=(4.5 * len(shares), 4.5), squeeze=False, layout='constrained'
    )
    for axes, (share, convs) in zip(panels[0], shares.items()):
        for index, (conv, rows) in enumerate(convs.items()):
            train = _mean_curve(rows, 'curve_train')
            test = _mean_curve(rows, 'curve_test')
            axes.plot(train, test, **_line(conv, index))
        axes.set(
            xlabel='training accuracy, %', title=f'{100 * float(share):g} % of the training set'
        )
        axes.axline((50, 50), slope=1, color='grey', lw=0.5)
        axes.grid(alpha=0.3)
    panels[0][0].set_ylabel('test accuracy, %')
    panels[0][0].legend(fontsize=8)
    figure.suptitle(title, fontsize=10)
    _save(figure, path)


def _mean_curve(rows: Sequence[Row], key: str) -> list[float]:
    """A curve's mean over runs, point by point."""
    runs = [list(map(float, row[key].split())) for row in rows]
    return [mean(values) for values in zip(*runs)]


def _line(conv: str, index: int) -> dict:
    """How the curve of a convolution is drawn; dense comes first."""
    return dict(
        color='black' if conv == 'dense' else f'C{index - 1}',
        marker=marker_of(conv),
        label=conv,
        lw=1,
    )


def detection(settings: Mapping[str, Mapping[str, Sequence[Row]]], title: str, path: Path) -> None:
    """mAP against MACs and against latency, where that is measured.

    A vertical line goes from the worst to the best seed.

    Args:
        settings: rows by convolution, by what they were trained with.
        title: what all of them have in common.
        path: the picture.
    """
    figure, panels = plt.subplots(1, 2, figsize=(12, 5.5), sharey=True, layout='constrained')
    palette = plt.colormaps['tab10' if len(settings) <= 10 else 'tab20']
    colors = cycle(palette.colors)
    for color, (label, convs) in zip(colors, settings.items()):
        maps = {conv: [float(row['mAP']) for row in rows] for conv, rows in convs.items()}
        for axes, key, unit in zip(panels, ('macs', 'latency_ms'), (1e9, 1)):
            cost = {
                conv: float(rows[0][key]) / unit for conv, rows in convs.items() if rows[0][key]
            }
            points = {conv: (cost[conv], mean(maps[conv])) for conv in cost}
            _scatter(axes, points, label, color)
            for conv, x in cost.items():
                low, high = min(maps[conv]), max(maps[conv])
                axes.vlines(x, low, high, color, lw=0.8)
    for axes in panels:
        axes.margins(0.08, 0.2)  # room for the labels
    panels[0].set(xlabel='MACs, G', ylabel='mAP, %')
    panels[1].set(xlabel='latency, ms')
    figure.legend(*panels[0].get_legend_handles_labels(), loc='outside lower center', fontsize=8)
    figure.suptitle(title, fontsize=10)
    _save(figure, path)
