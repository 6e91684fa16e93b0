"""Images that were found right are not opened again."""

import os
from pathlib import Path

import pytest
from mmengine.config import Config

from mmdet_hetconv.comfort.data.checks import check_data as module
from mmdet_hetconv.comfort.data.checks.check_data import check_data
from mmdet_hetconv.comfort.data.own_data import use_own_data
from mmdet_hetconv.utils.errors import UserError
from tests import tiny

CONFIG = "_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'"


@pytest.fixture
def cfg(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    tiny.write_coco(tmp_path / 'coco')
    cfg = Config.fromstring(CONFIG, '.py')
    use_own_data(cfg, str(tmp_path / 'coco'))
    return cfg


@pytest.fixture
def opened(monkeypatch):
    """The images that were opened, both times by the same functions."""
    opened = []
    original = module.check_images

    def check_images(paths, named_by):
        paths = list(paths)
        opened.extend(paths)
        original(paths, named_by)

    monkeypatch.setattr(module, 'check_images', check_images)
    return opened


def test_only_what_is_new_is_opened(cfg, opened, tmp_path):
    check_data(cfg, ('train', 'val'))
    images = sorted(opened)
    assert len(images) > 3
    opened.clear()
    check_data(cfg, ('train', 'val'))
    assert opened == []
    # Touched, written anew: opened again, and only that one.
    os.utime(images[0], ns=(1, 1))
    check_data(cfg, ('train', 'val'))
    assert opened == [images[0]]


def test_what_was_wrong_is_not_remembered(cfg, opened):
    check_data(cfg, ('val',))
    path = Path(opened[0])
    path.write_bytes(path.read_bytes()[:-100])
    for _ in range(2):
        with pytest.raises(UserError, match=path.name):
            check_data(cfg, ('val',))
    path.unlink()
    with pytest.raises(UserError, match='does not exist'):
        check_data(cfg, ('val',))


def test_another_size_in_the_annotations_is_noticed(cfg, opened, tmp_path):
    check_data(cfg, ('val',))
    (file,) = (tmp_path / 'coco').rglob('*val*.json')
    text = file.read_text()
    width = text.index('"width": ') + len('"width": ')
    file.write_text(f'{text[:width]}9{text[width:]}')
    with pytest.raises(UserError, match='its boxes would be in other places'):
        check_data(cfg, ('val',))


@pytest.mark.parametrize('content', ['', '[]', '{"a": 3}'])
def test_a_damaged_memory_counts_as_none(cfg, opened, tmp_path, content):
    check_data(cfg, ('val',))
    (file,) = (tmp_path / 'cache').rglob('*.json')
    file.write_text(content)
    images = sorted(opened)
    opened.clear()
    check_data(cfg, ('val',))
    assert sorted(opened) == images


def test_without_a_cache_folder_all_are_opened(cfg, opened, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', '/dev/null')
    check_data(cfg, ('val',))
    images = len(opened)
    check_data(cfg, ('val',))
    assert len(opened) == 2 * images > 0
