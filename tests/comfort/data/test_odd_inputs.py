"""Odd inputs of each layout: read as they are meant, or refused in one sentence."""

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from mmdet_hetconv.comfort.data.checks import check_data as check_module
from mmdet_hetconv.comfort.data.checks.check_data import check_data
from mmdet_hetconv.comfort.data.image_sizes import read_head
from mmdet_hetconv.comfort.data.layouts.image_finder import ImageFinder
from mmdet_hetconv.comfort.data.own_data import use_own_data
from mmdet_hetconv.comfort.data.voc import read_objects
from mmdet_hetconv.utils.errors import UserError
from mmdet_hetconv.utils.images import what_is_wrong
from tests import tiny
from tests.comfort.data.test_doubtful_inputs import boxes, names, read, told  # noqa: F401 (a fixture)
from tests.comfort.data.test_doubtful_inputs import tiny_yolo as yolo
from tests.comfort.data.test_exports import image

ONE = [[24, 12, 16, 24]]


def test_keys_without_a_value(tmp_path):
    yaml = 'names: [cat]\npath: null\nval: ~\ntest: test.txt\nkpt_shape: null\n'
    data = read(yolo(tmp_path / 'data', yaml=yaml))
    assert boxes(data.val) == ONE


@pytest.mark.parametrize('given', ['null', '{0: {name: cat}}', '[[cat]]', '[cat, ""]', '[]'])
def test_names_that_are_none(tmp_path, given):
    with pytest.raises(UserError, match='data.yaml.* names'):
        read(yolo(tmp_path / 'data', yaml=f'names: {given}\n'))


def test_an_image_that_is_named_like_a_note(tmp_path):
    root = yolo(tmp_path / 'data')
    for folder in ('images', 'labels'):
        for path in (root / folder / 'train').iterdir():
            path.rename(path.with_stem('notes_1'))
    (root / 'labels/train/classes.txt').write_text('cat\n')
    assert boxes(read(root).train[0]) == ONE


def test_an_image_without_label_beside_one_of_another_case(tmp_path):
    root = yolo(tmp_path / 'data')
    image(root / 'images/train/TRAIN.jpg')
    data = read(root)
    assert len(names(*data.train)) == 2
    assert boxes(data.train[0]) == ONE


def test_a_pattern_in_data_yaml(tmp_path):
    root = yolo(tmp_path / 'data', yaml='names: [cat]\ntrain: photos/*.jpg\nval: images/v*\n')
    image(root / 'photos/a.jpg')
    (root / 'photos/a.txt').write_text('0 0.5 0.5 0.25 0.5\n')
    data = read(root)
    assert (names(*data.train), names(data.val)) == (['photos/a.jpg'], ['images/val/val.jpg'])


def test_a_folder_of_data_yaml_that_is_not_there(tmp_path, told):  # noqa: F811
    read(yolo(tmp_path / 'data', yaml='names: [cat]\ntrain: images/train_2\n'))
    assert any('train=images/train_2 is not there' in text for text in told)


@pytest.mark.parametrize(
    'yaml, file, message',
    [
        ('names: [cat]\ntrain: [[images/train]]', None, 'is no list'),
        ('names: [cat]\nkpt_shape: [[1], [2]]', None, 'kpt_shape=.* are needed'),
        ('names: [cat]\ntrain: list.txt', 'utf-16', 'list.txt is not text in UTF-8'),
        ('names: list.txt', 'latin-1', 'list.txt is not text in UTF-8'),
    ],
)
def test_what_data_yaml_names_is_no_text(tmp_path, yaml, file, message):
    root = yolo(tmp_path / 'data', yaml=yaml)
    if file:
        (root / 'list.txt').write_bytes('images/train/bläh.jpg\n'.encode(file))
    with pytest.raises(UserError, match=message):
        read(root)


@pytest.mark.parametrize('order', [1, -1])
def test_names_that_differ_in_case_alone(tmp_path, order):
    image(tmp_path / 'a.jpg')
    find = ImageFinder([tmp_path])
    first, second = ['a.jpg', 'A.jpg'][::order]
    assert find(first) == find(f'./{first}') == tmp_path / 'a.jpg'
    with pytest.raises(UserError, match='may both be the image'):
        find(second)


def test_an_encoded_backslash(tmp_path):
    image(tmp_path / 'a b.jpg')
    assert ImageFinder([tmp_path])('/data/?d=mine%5Ca%20b.jpg') == tmp_path / 'a b.jpg'


@pytest.mark.parametrize('ending', ['jpg', 'png', 'tif', 'webp'])
def test_turned_images_have_the_size_that_opencv_gives_them(tmp_path, ending):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / f'a.{ending}'
    Image.new('RGB', (48, 64)).save(path, exif=exif)
    (width, height), on_side = read_head(path)
    content = np.fromfile(path, np.uint8)
    as_is = cv2.imdecode(content, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    turned = cv2.imdecode(content, cv2.IMREAD_COLOR)
    assert as_is.shape[:2] == (height, width)
    assert turned.shape[:2] == ((width, height) if on_side else (height, width))


def test_a_jpeg_that_ends_in_zeros(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (96, 128, 3), dtype=np.uint8)
    content = cv2.imencode('.jpg', pixels)[1].tobytes()
    path = tmp_path / 'a.jpg'
    path.write_bytes(content[: len(content) // 2] + bytes(len(content) // 2))
    assert what_is_wrong(str(path)) == 'is truncated: it has no end of image'
    path.write_bytes(content + bytes(10000))
    assert what_is_wrong(str(path)) is None


def test_copies_of_a_system_are_no_second_data_set(tmp_path):
    root = tiny.write_voc(tmp_path / 'voc')
    for name in ('Annotations', 'ImageSets'):
        (root / '__MACOSX' / name).mkdir(parents=True)
    assert len(read(root).train[0].annotations.images) == 6


def test_boxes_in_shares_of_the_image_are_told_of_the_validation_set(tmp_path, monkeypatch):
    root = tiny.write_coco(tmp_path / 'coco')
    path = root / 'annotations/instances_val2017.json'
    path.write_text(path.read_text().replace('"bbox": [6, 12, 18, 18]', '"bbox": [0, 0.2, 0.2, 1]'))
    lines = []
    monkeypatch.setattr(check_module, 'announce', lambda text, level=0: lines.append(text))
    loader = dict(dataset=dict(type='CocoDataset', test_mode=True, pipeline=[]))
    cfg = Config(dict(model={}, val_dataloader=loader, val_cfg=dict(type='ValLoop')))
    use_own_data(cfg, str(root))
    check_data(cfg, ('val',))
    assert any('3 of 6 boxes are not of any use: they are smaller' in line for line in lines)


def test_folders_of_splits_by_other_names(tmp_path):
    for split in ('Training', 'Validation'):
        for number in range(2):
            path = tmp_path / 'data' / split / f'{split}{number}.jpg'
            image(path)
            tiny.write_xml(path.with_suffix('.xml'), [('disc', [6, 12, 24, 30])])
    assert len(names(*read(tmp_path / 'data').train)) == 2


@pytest.mark.parametrize('tag', ['Object', 'OBJECT', 'Name', 'BndBox'])
def test_tags_of_voc_in_capitals_are_read(tmp_path, tag):
    path = tmp_path / 'a.xml'
    path.write_text(
        '<annotation><size><width>64</width><height>48</height></size><object><name>disc</name>'
        '<bndbox><xmin>2</xmin><ymin>3</ymin><xmax>9</xmax><ymax>8</ymax></bndbox></object>'
        '</annotation>'.replace(f'<{tag.lower()}>', f'<{tag}>').replace(
            f'</{tag.lower()}>', f'</{tag}>'
        )
    )
    assert read_objects(path, (64, 48)) == [('disc', (2, 3, 9, 8), False)]


def test_an_underscore_is_no_part_of_a_number(tmp_path):
    path = tmp_path / 'a.xml'
    path.write_text(
        '<annotation><object><name>disc</name><bndbox><xmin>2</xmin><ymin>3</ymin>'
        '<xmax>2_5</xmax><ymax>8</ymax></bndbox></object></annotation>'
    )
    with pytest.raises(UserError, match="a.xml: object 'disc' has xmax='2_5'"):
        read_objects(path, (64, 48))
