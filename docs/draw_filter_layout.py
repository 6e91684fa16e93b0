"""Draw which kernels of a HetConv layer are K x K and which are 1 x 1.

    python docs/draw_filter_layout.py docs/images/filter_layout.png

The picture shows the non-zero taps of real layers' weights.
"""

import argparse

import matplotlib
import numpy as np
from matplotlib import pyplot as plt

from mmdet_hetconv.layers import HetConv2d

matplotlib.use('Agg')
CHANNELS, PART = 8, 4
TAP, CENTRE = '#2f6db5', '#f0a030'


def draw(axes: plt.Axes, arrangement: str) -> None:
    """One row per filter, one 3 x 3 square per input channel."""
    layer = HetConv2d(CHANNELS, CHANNELS, 3, p=PART, arrangement=arrangement)
    taps = layer.dense_weight().detach().numpy() != 0
    for filter_, channel in np.ndindex(CHANNELS, CHANNELS):
        kernel = taps[filter_, channel]
        colour = TAP if kernel.all() else CENTRE
        for y, x in np.argwhere(kernel):
            place = (channel + x * 0.28 + 0.09, filter_ + y * 0.28 + 0.09)
            axes.add_patch(plt.Rectangle(place, 0.25, 0.25, color=colour))
    axes.set(
        title=f"arrangement='{arrangement}'",
        xlim=(0, CHANNELS),
        ylim=(CHANNELS, 0),
        xlabel='input channel',
        ylabel='filter',
        aspect='equal',
    )
    axes.set_xticks(range(CHANNELS + 1), labels=[])
    axes.set_yticks(range(CHANNELS + 1), labels=[])
    axes.grid(color='0.8')


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('out', metavar='FILE', help='picture to write')
    args = parser.parse_args()
    figure, both = plt.subplots(1, 2, figsize=(9, 5.1), layout='constrained')
    draw(both[0], 'blocked')
    draw(both[1], 'shifted')
    figure.suptitle(f'{CHANNELS} filters, {CHANNELS} channels, K=3, p={PART}')
    figure.savefig(args.out, dpi=110)


if __name__ == '__main__':
    main()
