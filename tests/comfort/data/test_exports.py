"""Data as annotation tools leave it: every layout gives the same data set."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmdet_hetconv.comfort.data.layouts.folders import find_data
from mmdet_hetconv.utils.errors import UserError
from tests import tiny
from tests.tools.entry import load_main

CLASSES = ('disc', 'long bar')
SIZE = (64, 48)
# Images of each split, by name: class, x, y, width, height in pixels.
DATA = {
    'train': {
        'a 1': [('disc', 6, 12, 18, 18), ('long bar', 34, 20, 26, 6)],
        'bläh': [('disc', 0, 0, 64, 48)],
        'c': [],
        'd': [('long bar', 10.5, 10.25, 20, 20)],
    },
    'val': {'e': [('disc', 6, 12, 18, 18)], 'f': [('long bar', 1, 1, 5, 5)]},
}


def image(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    _, data = cv2.imencode(path.suffix, np.full((SIZE[1], SIZE[0], 3), 90, np.uint8))
    path.write_bytes(data.tobytes())


def coco(pictures, prefix='', parent=False):
    """The content of a COCO file."""
    names = (['things'] if parent else []) + [*CLASSES]
    images, boxes = [], []
    for number, (name, things) in enumerate(pictures.items(), 7):
        file = f'{prefix}{name}.jpg'
        images.append(dict(id=number, file_name=file, width=SIZE[0], height=SIZE[1]))
        for kind, *box in things:
            boxes.append(
                dict(
                    id=len(boxes) + 1,
                    image_id=number,
                    category_id=names.index(kind),
                    bbox=box,
                    area=box[2] * box[3],
                    iscrowd=0,
                )
            )
    categories = [dict(id=number, name=name) for number, name in enumerate(names)]
    return json.dumps(dict(images=images, annotations=boxes, categories=categories))


def roboflow(root):
    for split, pictures in DATA.items():
        folder = root / {'val': 'valid'}.get(split, split)
        for name in pictures:
            image(folder / f'{name}.jpg')
        (folder / '_annotations.coco.json').write_text(coco(pictures, parent=True))


def official(root):
    for split, pictures in DATA.items():
        for name in pictures:
            image(root / f'{split}2017' / f'{name}.jpg')
        (root / 'annotations').mkdir(exist_ok=True)
        (root / 'annotations' / f'instances_{split}2017.json').write_text(coco(pictures))


def yolo(root, split_first=False):
    for split, pictures in DATA.items():
        for name, things in pictures.items():
            parts = (split, '{}') if split_first else ('{}', split)
            folder = root / '/'.join(parts).format('images')
            image(folder / f'{name}.PNG' if name == 'd' else folder / f'{name}.jpg')
            labels = root / '/'.join(parts).format('labels') / f'{name}.txt'
            labels.parent.mkdir(parents=True, exist_ok=True)
            lines = [
                f'{CLASSES.index(kind)} {(x + w / 2) / 64} {(y + h / 2) / 48} {w / 64} {h / 48}\n'
                for kind, x, y, w, h in things
            ]
            labels.write_text('\ufeff' + ''.join(lines) if name == 'e' else ''.join(lines))
    (root / 'data.yaml').write_text(
        f'train: ../train/images\nval: ../val/images\nnc: 2\nnames: {json.dumps(CLASSES)}\n'
    )


def labelimg(root):
    for split, pictures in DATA.items():
        folder = root / split.capitalize()
        for name, things in pictures.items():
            image(folder / f'{name}.JPG')
            objects = ''.join(
                f'<object><name>{kind}</name><difficult>0</difficult><bndbox>'
                f'<xmin>{x + 1}</xmin><ymin>{y + 1}</ymin><xmax>{x + w + 1}</xmax>'
                f'<ymax>{y + h + 1}</ymax></bndbox></object>'
                for kind, x, y, w, h in things
            )
            size = f'<size><width>{SIZE[0]}</width><height>{SIZE[1]}</height></size>'
            (folder / f'{name}.xml').write_text(f'<annotation>{size}{objects}</annotation>')


LAYOUTS = dict(
    roboflow=roboflow,
    official=official,
    yolo=yolo,
    yolo_by_split=lambda root: yolo(root, split_first=True),
    labelimg=labelimg,
)


def found(root, keep):
    return find_data(root, 'COCO', keep)


def complaint(root):
    with pytest.raises(UserError) as error:
        found(root, root / 'keep')
    return str(error.value)


def content(data, split):
    """Boxes by image and class, rounded to hundredths of a pixel."""
    path = data.root / split.ann_file
    read = json.loads(path.read_text())
    names = {category['id']: category['name'] for category in read['categories']}
    result = {}
    for entry in read['images']:
        assert (data.root / split.images / entry['file_name']).is_file()
        result[Path(entry['file_name']).stem] = sorted(
            (names[box['category_id']], *(round(value, 2) for value in box['bbox']))
            for box in read['annotations']
            if box['image_id'] == entry['id']
        )
    return result


@pytest.mark.parametrize('layout', LAYOUTS)
def test_every_layout_gives_the_same_data(tmp_path, layout):
    LAYOUTS[layout](tmp_path / 'data')
    data = found(tmp_path / 'data', tmp_path / 'keep')
    assert data.layout == 'COCO' and data.classes == CLASSES
    (train,) = data.train
    want = {name: sorted(things) for name, things in DATA['train'].items()}
    assert content(data, train) == want
    assert content(data, data.val) == {n: sorted(things) for n, things in DATA['val'].items()}
    assert f'{data.source or "COCO"} layout in' in str(data)


@pytest.mark.parametrize('layout', LAYOUTS)
def test_the_same_again_changes_no_file(tmp_path, layout):
    LAYOUTS[layout](tmp_path / 'data')
    before = None
    for _ in range(2):
        found(tmp_path / 'data', tmp_path / 'keep')
        files = {p: p.stat().st_mtime_ns for p in (tmp_path / 'keep').rglob('*.json')}
        assert before is None or files == before
        before = files


def test_an_empty_folder_beside_another_layout(tmp_path):
    official(tmp_path)
    (tmp_path / 'test').mkdir()
    assert found(tmp_path, tmp_path / 'keep').layout == 'COCO'


def one_file(root, path, folder, prefix=''):
    pictures = DATA['train'] | DATA['val']
    for name in pictures:
        image(root / folder / f'{name}.jpg')
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(coco(pictures, prefix))


@pytest.mark.parametrize(
    'source, path, folder, prefix',
    [
        ('CVAT', 'annotations/instances_default.json', 'images/default', ''),
        ('Label Studio', 'result.json', 'images', 'images\\'),
        ('COCO', 'annotations/instances_train.json', 'images', ''),
    ],
)
def test_one_split_becomes_two(tmp_path, monkeypatch, source, path, folder, prefix):
    told = []
    monkeypatch.setattr('mmdet_hetconv.comfort.data.layouts.to_coco.announce', told.append)
    one_file(tmp_path / 'data', path, folder, prefix)
    data = found(tmp_path / 'data', tmp_path / 'keep')
    assert data.source == source
    parts = content(data, data.train[0]), content(data, data.val)
    assert [len(part) for part in parts] == [5, 1]
    assert set(parts[0]) | set(parts[1]) == set(DATA['train'] | DATA['val'])
    assert 'one split: 1 of its 6 images, drawn with seed 0' in told[0]


def test_one_list_of_voc_becomes_two_splits(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr('mmdet_hetconv.comfort.data.layouts.to_coco.announce', told.append)
    tiny.write_voc(tmp_path / 'data', ('trainval',))
    data = found(tmp_path / 'data', tmp_path / 'keep')
    assert (data.layout, data.source, data.classes) == ('COCO', 'VOC', ('bar', 'disc'))
    count = tiny.SPLITS.get('trainval', 3)
    sizes = [len(split.annotations.images) for split in (data.train[0], data.val)]
    assert sum(sizes) == count and min(sizes) == 1
    assert f'one split: 1 of its {count} images, drawn with seed 0' in told[0]
    boxes = json.loads(Path(data.val.annotations.path).read_text())['annotations']
    # x1 y1 x2 y2 of the disc is 6 12 24 30, counted from 1.
    assert [5, 11, 18, 18] in [box['bbox'] for box in boxes]


def test_photos_in_one_folder(tmp_path):
    labelimg(tmp_path / 'data')
    for split in ('Train', 'Val'):
        for path in (tmp_path / 'data' / split).iterdir():
            path.rename(tmp_path / 'data' / path.name)
        (tmp_path / 'data' / split).rmdir()
    data = found(tmp_path / 'data', tmp_path / 'keep')
    parts = content(data, data.train[0]), content(data, data.val)
    assert [len(part) for part in parts] == [5, 1]


def test_two_layouts(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr('mmdet_hetconv.comfort.data.layouts.folders.announce', told.append)
    yolo(tmp_path)
    one_file(tmp_path, 'result.json', 'images')
    assert found(tmp_path, tmp_path / 'keep').source == 'Label Studio'
    assert told == [f'{tmp_path} has the layouts Label Studio and YOLO: Label Studio is taken']


def line(number, text):
    def change(root):
        path = root / 'labels/train/a 1.txt'
        lines = path.read_text().splitlines()
        lines[number - 1] = text
        path.write_text('\n'.join(lines))

    return change


def write(path, text):
    return lambda root: (root / path).write_text(text)


def remove(path):
    def change(root):
        found = root / path
        shutil.rmtree(found) if found.is_dir() else found.unlink()

    return change


@pytest.mark.parametrize(
    'change, message',
    [
        (line(2, '2 0.5 0.5 0.1 0.1'), 'a 1.txt, line 2: class 2, but data.yaml has 2, from 0 on'),
        (line(1, '0.5 0.5 0.5 0.1 0.1'), 'a 1.txt, line 1: class 0.5'),
        (line(2, '1 0.9 0.5 0.4 0.1'), 'a 1.txt, line 2: the box reaches from 0.45 to 1.1'),
        (line(1, '1 0.9 nan 0.4 0.1'), 'a 1.txt, line 1: the box reaches from'),
        (line(1, '1 0.9 0.5 0.1'), 'line 1: 3 numbers behind the class are neither'),
        (line(1, 'disc 0.5 0.5 0.1 0.1'), "line 1: 'disc 0.5 0.5 0.1 0.1' are not numbers"),
        (line(1, '0 0.5 0.5 -0.1 0.1'), 'line 1: the box has the size -0.1 x 0.1'),
        (remove('images/train/d.PNG'), 'd.txt has no image in'),
        (remove('labels/train'), 'has no label file for the images of'),
        (write('data.yaml', 'names: [a, a]'), 'names has a class twice'),
        (write('data.yaml', 'names: {1: a}'), 'names has the keys [1], not 0, 1'),
        (write('data.yaml', 'nc: 2'), 'has no names of classes'),
        (write('data.yaml', 'names: [a'), 'data.yaml is not valid YAML'),
        (write('images/train/c.jpg', 'no image'), 'c.jpg cannot be read'),
    ],
)
def test_what_is_wrong_with_yolo(tmp_path, change, message):
    yolo(tmp_path)
    change(tmp_path)
    assert message in complaint(tmp_path)
    assert not (tmp_path / 'keep').exists()


def test_a_polygon_and_images_without_labels(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr('mmdet_hetconv.comfort.data.layouts.yolo.announce', told.append)
    yolo(tmp_path)
    line(1, '0 0.25 0.25 0.5 0.25 0.5 0.75')(tmp_path)
    remove('labels/train/bläh.txt')(tmp_path)
    data = found(tmp_path, tmp_path / 'keep')
    boxes = content(data, data.train[0])
    assert ('disc', 16, 12, 16, 24) in boxes['a 1'] and boxes['bläh'] == []
    assert '1 images without label file' in told[0]


@pytest.mark.parametrize(
    'change, message',
    [
        (remove('Train/c.JPG'), 'c.xml has no image beside it'),
        (write('Train/c.xml', '<annotation>'), 'c.xml is not valid XML'),
        (lambda root: image(root / 'Train/c.png'), 'has two images of the name c'),
        (lambda root: [p.unlink() for p in (root / 'Val').iterdir()], 'Val is empty'),
    ],
)
def test_what_is_wrong_with_labelimg(tmp_path, change, message):
    labelimg(tmp_path)
    change(tmp_path)
    assert message in complaint(tmp_path)


def test_sizes_and_classes_of_labelimg(tmp_path, monkeypatch):
    labelimg(tmp_path)
    path = tmp_path / 'Val' / 'e.xml'
    text = path.read_text()
    path.write_text(text.replace('<width>64', '<width>640'))
    with pytest.raises(UserError, match='is loaded with 64 x 48 pixels, but .*e.xml has 640 x 48'):
        found(tmp_path, tmp_path / 'keep')
    path.write_text(text.replace('disc', 'disk'))
    told = []
    monkeypatch.setattr(
        'mmdet_hetconv.comfort.data.layouts.tool_layouts.announce',
        lambda text, level=0: told.append(text),
    )
    assert found(tmp_path, tmp_path / 'keep').classes == ('disc', 'disk', 'long bar')
    assert "no training image has the classes 'disk' of the validation images" in told[0]


def test_a_look_at_the_data(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr('mmdet_hetconv.comfort.data.browse.announce', told.append)
    monkeypatch.chdir(tmp_path)
    labelimg(tmp_path / 'data')
    load_main('browse_data')(['--data-root', 'data', '--out', 'sheet.png', '--number', '3'])
    table, end = told
    rows = {line.split('  ')[0]: line.split()[-5:] for line in table.splitlines()}
    assert rows['disc'] == ['2', '2', '18', '37', '55']
    assert rows['long bar'] == ['2', '2', '12', '16', '20']
    assert '4 images, 1 without boxes' in table
    assert end == 'sheet.png written: 3 of the training images'
    sheet = cv2.imread('sheet.png')
    assert sheet.shape == (2 * 240, 2 * 320, 3)
    # Boxes are in colour, the images are grey.
    assert (np.ptp(sheet[:240, :320].astype(int), axis=2) > 100).any()


def test_a_folder_of_nothing_known(tmp_path):
    (tmp_path / 'notes.txt').write_text('')
    message = complaint(tmp_path)
    assert f'--data-root {tmp_path} has notes.txt, and none of the layouts COCO (' in message
    for name in ('VOC', 'Roboflow', 'CVAT', 'Label Studio', 'YOLO', 'LabelImg'):
        assert f'{name} (' in message
