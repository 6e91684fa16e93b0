"""Complete images of every kind pass; the others are named."""

import numpy as np
import pytest
from PIL import Image

from mmdet_hetconv.utils.errors import UserError
from mmdet_hetconv.utils.images import check_images, files_below, what_is_wrong


def picture(mode='RGB'):
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (40, 50, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


@pytest.mark.parametrize(
    'name, mode',
    [
        ('a.jpg', 'RGB'),
        ('a.jpg', 'L'),
        ('a.jpg', 'CMYK'),
        ('a.png', 'RGBA'),
        ('a.png', 'I;16'),
        ('a.bmp', 'RGB'),
        ('a.webp', 'RGB'),
        ('a.tif', 'RGB'),
    ],
)
def test_complete_and_truncated(name, mode, tmp_path):
    path = tmp_path / name
    source = picture('L') if mode == 'I;16' else picture(mode)
    source.convert(mode).save(path)
    assert what_is_wrong(str(path)) is None
    data = path.read_bytes()
    path.write_bytes(data + b'\0' * 100)  # some cameras do
    assert what_is_wrong(str(path)) is None
    path.write_bytes(data[: len(data) // 2])
    assert 'truncated' in what_is_wrong(str(path))


def test_a_jpeg_with_much_behind_its_end(tmp_path):
    path = tmp_path / 'a.jpg'
    picture().save(path)
    path.write_bytes(path.read_bytes() + b'video' * 10_000)
    assert what_is_wrong(str(path)) is None


def test_the_first_bad_image_is_named(tmp_path):
    paths = [str(tmp_path / f'{number}.jpg') for number in range(50)]
    for path in paths:
        picture().save(path)
    check_images(paths, 'train.json')
    open(paths[7], 'w').close()
    open(paths[30], 'w').close()
    with pytest.raises(UserError) as error:
        check_images(paths, 'train.json')
    assert str(error.value) == (f'image {paths[7]} is empty (named by train.json)')


def test_files_behind_links_are_found_once(tmp_path):
    """A data set's folder of images is often a link to another disk."""
    disk = tmp_path / 'disk' / 'images'
    disk.mkdir(parents=True)
    (disk / 'a.jpg').write_bytes(b'')
    data = tmp_path / 'data'
    data.mkdir()
    (data / 'train').symlink_to(disk)
    (disk / 'back').symlink_to(data)
    assert [*files_below(data)] == [data / 'train' / 'a.jpg']
