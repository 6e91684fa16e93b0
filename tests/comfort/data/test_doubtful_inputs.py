"""What a layout can mean in two ways is read as its tool means it, and told."""

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from mmdet_hetconv.comfort.data.checks.masks import check_masks
from mmdet_hetconv.comfort.data.coco import read_coco
from mmdet_hetconv.comfort.data.layouts.folders import find_data
from mmdet_hetconv.comfort.data.layouts.image_finder import ImageFinder
from mmdet_hetconv.comfort.data.voc import read_objects
from mmdet_hetconv.utils.errors import UserError
from mmdet_hetconv.utils.images import what_is_wrong
from tests import tiny
from tests.comfort.data.test_exports import DATA, coco, image, labelimg, roboflow, yolo
from tests.tools.entry import load_main

PART = 'mmdet_hetconv.comfort.data.layouts.'


@pytest.fixture
def told(monkeypatch):
    lines = []
    for name in ('folders', 'yolo', 'to_coco', 'tool_layouts', 'labelimg', 'coco_tools'):
        monkeypatch.setattr(f'{PART}{name}.announce', lambda text, level=0: lines.append(text))
    return lines


def read(root):
    return find_data(root, 'COCO', root.parent / 'keep')


def names(*splits):
    return sorted(name for split in splits for name in split.annotations.images)


def boxes(split):
    entries = json.loads(split.annotations.path.read_text())['annotations']
    return [[round(value, 1) for value in entry['bbox']] for entry in entries]


def tiny_yolo(root, label='0 0.5 0.5 0.25 0.5\n', yaml='names: [cat]\n'):
    for split in ('train', 'val'):
        image(root / f'images/{split}/{split}.jpg')
        (root / f'labels/{split}').mkdir(parents=True)
        (root / f'labels/{split}/{split}.txt').write_text(label)
    (root / 'data.yaml').write_text(yaml)
    return root


@pytest.mark.parametrize(
    'shape, points', [('[2, 2]', '0.1 0.1 0.9 0.9'), ('[2, 3]', '0.1 0.1 2 0.9 0.9 0')]
)
def test_key_points_are_no_polygon(tmp_path, shape, points):
    label = f'0 0.5 0.5 0.25 0.5 {points}\n'
    yaml = f'names: [cat]\nkpt_shape: {shape}\n'
    data = read(tiny_yolo(tmp_path / 'data', label, yaml))
    assert boxes(data.train[0]) == [[24, 12, 16, 24]]
    with pytest.raises(UserError, match='numbers behind the class, a box and the key points'):
        read(tiny_yolo(tmp_path / 'other', '0 0.5 0.5 0.25 0.5\n', yaml))


def test_a_turned_box_of_yolo(tmp_path):
    data = read(tiny_yolo(tmp_path / 'data', '0 0.5 0.25 0.75 0.5 0.5 0.75 0.25 0.5\n'))
    assert boxes(data.train[0]) == [[16, 12, 32, 24]]


@pytest.mark.parametrize(
    'train', ['[images/train, more/images]', '[train.txt, more/images]', 'both.txt']
)
def test_lists_in_data_yaml(tmp_path, train):
    root = tiny_yolo(tmp_path / 'data', yaml=f'names: [cat]\ntrain: {train}\nval: val.txt\n')
    image(root / 'more/images/a.png')
    (root / 'more/labels').mkdir()
    (root / 'more/labels/a.txt').write_text('')
    (root / 'train.txt').write_text('./images/train/train.jpg\n')
    (root / 'both.txt').write_text('/elsewhere/images/train/train.jpg\nmore\\images\\a.png\n\n')
    (root / 'val.txt').write_bytes(b'\xef\xbb\xbfimages/val/val.jpg\r\n')
    data = read(root)
    assert names(*data.train) == ['images/train/train.jpg', 'more/images/a.png']
    assert names(data.val) == ['images/val/val.jpg']
    (root / 'val.txt').unlink()
    with pytest.raises(UserError, match='val=val.txt is not there'):
        read(root)


def test_no_labelled_object_becomes_background(tmp_path):
    root = tiny_yolo(tmp_path / 'data')
    image(root / 'images/train/train.png')
    image(root / 'images/train/.ipynb_checkpoints/train-checkpoint.jpg')
    image(root / 'images/train/._train.jpg')
    (root / 'labels/train/train.txt').rename(root / 'labels/train/Train.TXT')
    data = read(root)
    assert names(*data.train) == ['images/train/train.jpg', 'images/train/train.png']
    assert boxes(data.train[0]) == [[24, 12, 16, 24]] * 2


@pytest.mark.parametrize(
    'yaml, classes, line',
    [
        ('names: cat', ('cat',), "names is the text 'cat', taken for one class"),
        ('names: [yes, 010]', ('yes', '010'), ''),
        ('names: {0: no}', ('no',), ''),
        ('nc: 3\nnames: [cat]', ('cat',), 'nc=3, but names has 1 classes'),
    ],
)
def test_names_in_data_yaml(tmp_path, told, yaml, classes, line):
    assert read(tiny_yolo(tmp_path / 'data', yaml=yaml)).classes == classes
    assert any(line in text for text in told)


def test_images_elsewhere(tmp_path):
    root = tiny_yolo(tmp_path / 'data')
    (root / 'images').rename(tmp_path / 'store')
    (root / 'images').symlink_to(tmp_path / 'store')
    assert names(*read(root).train) == ['images/train/train.jpg']
    other = tmp_path / 'other'
    other.mkdir()
    (other / 'data.yaml').write_text(
        f'path: {root}\nnames: [cat]\ntrain: images/train\nval: images/val\n'
    )
    assert names(*read(other).train) == [f'{root}/images/train/train.jpg']


@pytest.mark.parametrize(
    'name', ['d\\a b.jpg', 'd/a%20b.jpg', '/data/upload/4/0a1b2c3d-a b.jpg', 'x/?d=d/A B.JPG']
)
def test_names_of_other_machines(tmp_path, name):
    image(tmp_path / 'd' / 'a b.jpg')
    find = ImageFinder([tmp_path, tmp_path / 'd'])
    assert find(name) == tmp_path / 'd' / 'a b.jpg'
    assert find('c.jpg') is None


def test_two_names_of_one_image(tmp_path):
    image(tmp_path / 'a.jpg')
    find = ImageFinder([tmp_path])
    find('one/a.jpg')
    with pytest.raises(UserError, match='two/a.jpg and one/a.jpg may both be the image'):
        find('two/a.jpg')


def test_the_same_images_and_lines(tmp_path, told):
    yaml = 'names: [cat]\ntrain: images/train\nval: images/train\n'
    data = read(tiny_yolo(tmp_path / 'data', '0 0.5 0.5 0.25 0.5\n' * 2, yaml))
    assert len(boxes(data.train[0])) == 1
    assert any('2 boxes are there twice' in text for text in told)
    assert any('1 of the 1 validation images are training images, too' in text for text in told)


def test_doubts_on_a_coco_file(tmp_path):
    things = [('disc', 34, 20, 60, 40)] * 2 + [('disc', x, 0, 5, 5) for x in range(100)]
    path = tmp_path / 'a.json'
    path.write_text(coco({'a': things[:2], 'b': things[2:3]}))
    twice, corners = read_coco(path).warnings
    assert '1 boxes are there twice' in twice and 'a.jpg first' in twice
    assert '2 of 3 boxes end outside of their image' in corners
    path.write_text(coco({'a': things[1:]}))
    assert '1 images have more than 100 boxes' in read_coco(path).warnings[0]
    content = json.loads(path.read_text())
    content['annotations'][0]['segmentation'] = [[1, 1, 5, 1, 5, 5]]
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match='but 100 of the 101 boxes of .* have no segmentation'):
        check_masks(read_coco(path))
    content['categories'][0]['id'] = 'c'
    path.write_text(json.dumps(content).replace('"category_id": 0', '"category_id": "c"'))
    with pytest.raises(UserError, match="categories holds the id 'c', a whole number is needed"):
        read_coco(path)


def test_other_categories_to_evaluate(tmp_path, told):
    for split, pictures in DATA.items():
        for name in pictures:
            image(tmp_path / 'data/images' / f'{name}.jpg')
        content = json.loads(coco(pictures))
        if split == 'val':
            content['categories'].reverse()
            content['categories'][1]['name'] = 'ring'  # the disc
        path = tmp_path / f'data/annotations/instances_{split}.json'
        path.parent.mkdir(exist_ok=True)
        path.write_text('\ufeff' + json.dumps(content))
    with pytest.raises(UserError, match='instances_val.json starts with a byte-order mark'):
        read_coco(path)
    data = read(tmp_path / 'data')
    assert data.classes == ('disc', 'long bar', 'ring')
    assert [c.classes for c in data.val.annotations.contents] == [{'ring'}, {'long bar'}]
    assert any("no training image has the classes 'ring'" in text for text in told)


def test_splits_that_are_not_used(tmp_path):
    yolo(tmp_path / 'yolo')
    (tmp_path / 'yolo/images/test').mkdir()
    labelimg(tmp_path / 'labelimg')
    (tmp_path / 'labelimg/test').mkdir()
    roboflow(tmp_path / 'roboflow')
    (tmp_path / 'roboflow/test').mkdir()
    (tmp_path / 'roboflow/test/_annotations.coco.json').write_text('{"images": []}')
    for name in ('yolo', 'labelimg', 'roboflow'):
        assert len(read(tmp_path / name).val.annotations.images) == 2


@pytest.mark.parametrize('parent, classes', [('things', 2), ('disc', 2), ('none', 3)])
def test_parents_of_roboflow(tmp_path, parent, classes):
    roboflow(tmp_path / 'data')
    for path in (tmp_path / 'data').rglob('*.json'):
        content = json.loads(path.read_text())
        first, *others = content['categories']
        first.update(name='things' if parent == 'none' else parent, supercategory='none')
        for category in others:
            category['supercategory'] = parent
        path.write_text(json.dumps(content))
    assert len(read(tmp_path / 'data').classes) == classes


TURNED = '<robndbox><cx>20</cx><cy>15</cy><w>10</w><h>20</h><angle>1.5707963</angle></robndbox>'
SIZE = '<size><width>64</width><height>48</height></size>'


@pytest.mark.parametrize(
    'size, box',
    [
        (SIZE.replace('64', '64.0'), None),
        (SIZE.replace('64', '0').replace('48', '0'), None),
        (
            SIZE,
            '<robndbox><cx>20</cx><cy>15</cy><w>10</w><h>20</h><angle>1.5707963</angle></robndbox>',
        ),
        (SIZE, '<polygon><x1>10</x1><y1>10</y1><x2>30</x2><y2>20</y2></polygon>'),
        (SIZE, '<polygon><pt><x>10</x><y>10</y></pt><pt><x>30</x><y>20</y></pt></polygon>'),
    ],
)
def test_xml_files_of_many_hands(tmp_path, size, box):
    box = box or '<bndbox><xmin>10</xmin><ymin>10</ymin><xmax>30</xmax><ymax>20</ymax></bndbox>'
    path = tmp_path / 'a.xml'
    path.write_text(
        f'<annotation xmlns="urn:x">{size}<object><name>cat</name><difficult> 0 </difficult>{box}'
        '</object></annotation>'
    )
    ((name, edges, difficult),) = read_objects(path, (64, 48))
    assert (name, difficult) == ('cat', False)
    assert edges == pytest.approx((10, 10, 30, 20), abs=1e-4)


@pytest.mark.parametrize('content', [None, b'broken'])
def test_a_look_at_a_broken_image(tmp_path, content):
    root = tiny.write_voc(tmp_path / 'voc')
    for path in (root / 'Annotations').iterdir():
        path.write_text(re.sub('<size>.*</size>', '', path.read_text()))
    path = root / 'JPEGImages' / 'train_1.jpg'
    path.unlink()
    if content:
        path.write_bytes(content)
    with pytest.raises(SystemExit, match='browse_data.py: error: image .*train_1.jpg'):
        load_main('browse_data')(['--data-root', str(root), '--out', str(tmp_path / 'a.png')])


def test_images_that_opencv_does_not_read(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / 'a.png'), pixels)
    content = bytearray((tmp_path / 'a.png').read_bytes())
    content[len(content) // 2] ^= 255
    (tmp_path / 'a.png').write_bytes(content)
    Image.fromarray((pixels[..., 0] / 255).astype(np.float32)).save(tmp_path / 'a.tif')
    Image.fromarray(pixels).resize((16, 12)).save(tmp_path / 'small.jpg')
    exif = b'Exif\0\0' + (tmp_path / 'small.jpg').read_bytes()
    Image.fromarray(pixels).save(tmp_path / 'a.jpg', exif=exif)
    assert what_is_wrong(str(tmp_path / 'a.jpg')) is None
    content = (tmp_path / 'a.jpg').read_bytes()
    (tmp_path / 'a.jpg').write_bytes(content[: -len(content) // 8])
    for name in ('a.png', 'a.tif', 'a.jpg'):
        assert what_is_wrong(str(tmp_path / name)), name


@pytest.mark.parametrize('split', ['{}/images/{}.jpg', 'images/{}/{}.jpg', 'images/{1}.jpg'])
def test_xml_files_in_a_folder_of_their_own(tmp_path, split):
    for name in ('train', 'val'):
        path = tmp_path / 'data' / split.format(name, name)
        image(path)
        xml = Path(str(path).replace('images', 'annotations')).with_suffix('.xml')
        xml.parent.mkdir(parents=True, exist_ok=True)
        xml.write_text(
            '<annotation><object><name>cat</name><bndbox><xmin>1</xmin><ymin>1</ymin>'
            '<xmax>9</xmax><ymax>9</ymax></bndbox></object></annotation>'
        )
    data = read(tmp_path / 'data')
    assert (data.source, boxes(data.val)) == ('LabelImg', [[0, 0, 8, 8]])
