"""Images of another size, or turned, than their annotations are made for."""

import logging

import mmcv
import numpy as np
import pytest
from PIL import Image

from mmdet_hetconv.comfort.data import image_sizes
from mmdet_hetconv.comfort.data.image_sizes import check_sizes, turns_images
from mmdet_hetconv.utils.errors import UserError

SIZE = (100, 40)  # width, height of the bitmap


def write(folder, name='a.jpg', orientation=None):
    path = folder / name
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    Image.fromarray(np.zeros((*SIZE[::-1], 3), np.uint8)).save(path, exif=exif)
    return str(path)


@pytest.mark.parametrize('flag', ['color', 'unchanged', 'color_ignore_orientation'])
@pytest.mark.parametrize('name', ['a.jpg', 'a.png', 'a.webp'])
@pytest.mark.parametrize('orientation', [None, 1, 3, 5, 6, 7, 8])
def test_right_sizes_are_those_of_mmcv(orientation, name, flag, tmp_path):
    path = write(tmp_path, name, orientation)
    turned = turns_images([dict(type='LoadImageFromFile', color_type=flag)])
    height, width = mmcv.imread(path, flag=flag).shape[:2]
    check_sizes([(path, (width, height), turned)], 'a.json')
    with pytest.raises(UserError, match=f'loaded with {width} x {height} '):
        check_sizes([(path, (height, width), turned)], 'a.json')


def test_messages(tmp_path):
    good, turned = write(tmp_path), write(tmp_path, 'b.jpg', 6)
    with pytest.raises(UserError) as error:
        check_sizes([(good, SIZE, True), (turned, SIZE, True)], 'train.json')
    assert str(error.value) == (
        f'image {turned} is loaded with 40 x 100 pixels, turned by its EXIF '
        'orientation, but train.json has 100 x 40: its boxes would be in '
        'other places'
    )
    with pytest.raises(UserError, match='100 x 40 pixels, but train.json has'):
        check_sizes([(good, (50, 20), True)], 'train.json')


def test_rounded_sizes_are_told(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(image_sizes, 'announce', lambda *arguments: told.append(arguments))
    path = write(tmp_path)
    check_sizes([(path, (101, 38), True), (path, SIZE, True)], 'train.json')
    ((text, level),) = told
    assert text.startswith('train.json: 1 images differ') and path in text
    assert level == logging.WARNING


def test_formats_that_are_not_known_are_left_to_opencv(tmp_path):
    path = tmp_path / 'a.xyz'
    path.write_bytes(b'not an image')
    check_sizes([(str(path), SIZE, True)], 'train.json')


def test_pipelines():
    assert turns_images([])
    assert turns_images([dict(type='mmdet.LoadImageFromFile')])
    load = dict(type='LoadImageFromFile', color_type='unchanged')
    assert not turns_images([dict(type='Other'), load])
