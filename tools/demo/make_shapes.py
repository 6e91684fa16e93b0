"""Draw a small data set of shapes for detectors, in COCO and VOC layout.

    python tools/demo/make_shapes.py data/demo

Circles, squares and triangles of any colour on textured backgrounds. Both
layouts hold the same images and boxes, and the same arguments give the same
bytes every time:

    DIR/coco/annotations/instances_{train,val}.json  DIR/coco/images/
    DIR/voc/{Annotations,ImageSets/Main,JPEGImages}/

DIR appears when everything in it is complete.
"""

import argparse
import json
import shutil
from pathlib import Path

import cv2
import numpy as np

# Class -> number of corners and the turn at which it stands upright.
CORNERS = {'circle': (60, 0), 'square': (4, 1 / 8), 'triangle': (3, -1 / 4)}
CLASSES = tuple(CORNERS)
TILT = 0.06  # turns, to either side
WIDTH, HEIGHT = 160, 128
PLACES = (
    'coco/annotations',
    'coco/images',
    'voc/Annotations',
    'voc/ImageSets/Main',
    'voc/JPEGImages',
)
JPEG_QUALITY = [cv2.IMWRITE_JPEG_QUALITY, 95]


def texture(rng: np.random.Generator) -> np.ndarray:
    """Coarse blotches of colour, stripes and grain, (HEIGHT, WIDTH, 3)."""
    coarse = rng.uniform(60, 195, (5, 6, 3)).astype(np.float32)
    image = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    angle, period = rng.uniform(0, np.pi), rng.uniform(6, 30)
    wave = x * np.cos(angle) + y * np.sin(angle)
    stripes = rng.uniform(0, 15) * np.sin(2 * np.pi * wave / period)
    grain = rng.normal(0, 10, image.shape)
    return np.clip(image + stripes[..., None] + grain, 0, 255)


def outline(name: str, rng: np.random.Generator) -> np.ndarray:
    """Corners of one shape at a random place, size and tilt, (points, 2)."""
    corners, upright = CORNERS[name]
    radius = rng.uniform(14, 30)
    centre = rng.uniform(radius, (WIDTH - 1 - radius, HEIGHT - 1 - radius))
    turns = np.arange(corners) / corners + upright + rng.uniform(-TILT, TILT)
    angles = 2 * np.pi * turns
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return np.round(centre + radius * circle).astype(np.int32)


def draw(rng: np.random.Generator) -> tuple[np.ndarray, list[dict]]:
    """One image and its objects: name and box (x, y, width, height)."""
    image = texture(rng)
    taken = np.zeros((HEIGHT, WIDTH), np.uint8)
    objects = []
    for _ in range(rng.integers(1, 5)):
        name = str(rng.choice(CLASSES))
        corners = outline(name, rng)
        x, y, w, h = cv2.boundingRect(corners)
        if taken[y : y + h, x : x + w].any():
            continue  # shapes do not cover each other
        taken[y : y + h, x : x + w] = 1
        shape = cv2.fillPoly(np.zeros_like(taken), [corners], 1) == 1
        grain = rng.normal(0, 6, (shape.sum(), 3))
        image[shape] = np.clip(rng.uniform(0, 255, 3) + grain, 0, 255)
        objects.append(dict(name=name, box=[x, y, w, h]))
    return image.astype(np.uint8), objects


def voc_xml(file_name: str, objects: list[dict]) -> str:
    """The annotation of one image; VOC counts pixels from 1."""
    lines = [
        f'<annotation><filename>{file_name}</filename>',
        f'<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>',
    ]
    for item in objects:
        x, y, w, h = item['box']
        lines.append(
            f'<object><name>{item["name"]}</name><difficult>0</difficult>'
            f'<bndbox><xmin>{x + 1}</xmin><ymin>{y + 1}</ymin>'
            f'<xmax>{x + w}</xmax><ymax>{y + h}</ymax></bndbox></object>'
        )
    return '\n'.join([*lines, '</annotation>\n'])


def make_split(folder: Path, split: str, count: int, seed: int) -> None:
    """Draw ``count`` images and write them in both layouts."""
    images, annotations = [], []
    for index in range(count):
        stem = f'{split}_{index:05d}'
        rng = np.random.default_rng([seed, split == 'val', index])
        image, objects = draw(rng)
        _, jpeg = cv2.imencode('.jpg', image, JPEG_QUALITY)
        for place in ('coco/images', 'voc/JPEGImages'):
            (folder / place / f'{stem}.jpg').write_bytes(jpeg.tobytes())
        (folder / f'voc/Annotations/{stem}.xml').write_text(voc_xml(f'{stem}.jpg', objects))
        images.append(dict(id=index, file_name=f'{stem}.jpg', width=WIDTH, height=HEIGHT))
        for item in objects:
            w, h = item['box'][2:]
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=index,
                    category_id=CLASSES.index(item['name']) + 1,
                    bbox=item['box'],
                    area=w * h,
                    iscrowd=0,
                )
            )
    categories = [dict(id=i + 1, name=name) for i, name in enumerate(CLASSES)]
    coco = dict(images=images, annotations=annotations, categories=categories)
    (folder / f'coco/annotations/instances_{split}.json').write_text(json.dumps(coco))
    stems = ''.join(f'{Path(image["file_name"]).stem}\n' for image in images)
    (folder / f'voc/ImageSets/Main/{split}.txt').write_text(stems)


def make_data_set(folder: Path, train: int, val: int, seed: int) -> None:
    """Make both splits next to ``folder``, then move them into place."""
    unfinished = folder.with_name(folder.name + '.unfinished')
    shutil.rmtree(unfinished, ignore_errors=True)
    for place in PLACES:
        (unfinished / place).mkdir(parents=True)
    make_split(unfinished, 'train', train, seed)
    make_split(unfinished, 'val', val, seed)
    unfinished.rename(folder)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('folder', type=Path, metavar='DIR')
    parser.add_argument('--train', type=int, default=500, help='images')
    parser.add_argument('--val', type=int, default=100, help='images')
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    if args.folder.exists():
        print(f'{args.folder} is there already')
        return
    make_data_set(args.folder, args.train, args.val, args.seed)
    print(f'{args.folder}: {args.train} + {args.val} images drawn')


if __name__ == '__main__':
    main()
