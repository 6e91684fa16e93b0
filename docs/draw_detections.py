"""Draw what two detectors find in the same images, side by side.

    python docs/draw_detections.py docs/images/detections.jpg \
        --detector 'dense, 373 M MACs' CONFIG CHECKPOINT \
        --detector 'HetConv P=4, 217 M MACs' CONFIG CHECKPOINT \
        --images data/demo/coco/images/val/000000.jpg ...
"""

import argparse
from pathlib import Path

import matplotlib
from matplotlib import pyplot as plt

from mmdet_hetconv.comfort.show.inferencer import HetInferencer

matplotlib.use('Agg')
SCORE = 0.5
COLOURS = ('#d1495b', '#00798c', '#edae49')


def draw(axes: plt.Axes, detector: HetInferencer, path: str) -> None:
    """One image with the boxes above SCORE, class and score."""
    image = detector.reading.file(Path(path))
    (sample,) = detector.detect([image])
    axes.imshow(image[..., ::-1])
    found = sample.pred_instances
    for (x1, y1, x2, y2), label, score in zip(
        found.bboxes.tolist(), found.labels.tolist(), found.scores.tolist()
    ):
        if score < SCORE:
            continue
        colour = COLOURS[label % len(COLOURS)]
        axes.add_patch(plt.Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, color=colour, lw=1.5))
        axes.text(
            x1,
            y1 - 2,
            f'{detector.classes[label]} {score:.2f}',
            color='white',
            fontsize=6,
            bbox=dict(facecolor=colour, edgecolor='none', pad=0.8),
        )
    axes.set_axis_off()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('out')
    parser.add_argument(
        '--detector',
        nargs=3,
        action='append',
        required=True,
        metavar=('TITLE', 'CONFIG', 'CHECKPOINT'),
    )
    parser.add_argument('--images', nargs='+', required=True)
    args = parser.parse_args()
    figure, panels = plt.subplots(
        len(args.detector),
        len(args.images),
        squeeze=False,
        figsize=(2.6 * len(args.images), 2.3 * len(args.detector)),
        layout='constrained',
    )
    for row, (title, *files) in zip(panels, args.detector):
        detector = HetInferencer(*files)
        for axes, path in zip(row, args.images):
            draw(axes, detector, path)
        row[0].set_title(title, fontsize=9, loc='left')
    figure.savefig(args.out, dpi=110)


if __name__ == '__main__':
    main()
