"""The Python of docs/guide/python.md runs as it stands, on tiny data."""

import re
import shutil

import pytest
import torch
from mmengine.config import Config

from mmdet_hetconv.analysis import build_detector
from tests import tiny

from .commands import ROOT

BLOCK = re.compile(r'^```python\n(.*?)^```$', re.MULTILINE | re.DOTALL)
CONV_CFG = "        conv_cfg=dict(type='HetConv', p=4),\n"
SCALES = dict.fromkeys((option.partition('=')[0] for option in tiny.SCALES), (64, 48))


def write(path, text):
    path.write_text(text)
    return path


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The files that the page names."""
    tiny.write_coco(tmp_path / 'my_data')
    (tmp_path / 'my_photos').mkdir()
    images = sorted((tmp_path / 'my_data' / 'train2017').iterdir())
    for number, image in enumerate(images, 1):
        shutil.copy(image, tmp_path / 'my_photos' / f'{number:06}.jpg')
    for name, text in (('het', tiny.CONFIG), ('dense', tiny.CONFIG.replace(CONV_CFG, ''))):
        cfg = Config.fromfile(write(tmp_path / f'{name}_.py', text))
        cfg.merge_from_dict(SCALES)
        cfg.model.roi_head.bbox_head.num_classes = 2
        cfg.dump(tmp_path / f'{name}.py')
    torch.manual_seed(0)
    model = build_detector(cfg.model)
    meta = dict(dataset_meta=dict(classes=tiny.CLASSES))
    torch.save(dict(state_dict=model.state_dict(), meta=meta), tmp_path / 'dense.pth')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_block_runs(folder, capsys):
    names = {}
    page = (ROOT / 'docs' / 'guide' / 'python.md').read_text()
    blocks = BLOCK.findall(page)
    assert len(blocks) == 7
    for block in blocks:
        exec(compile(block, 'python.md', 'exec'), names)
    assert 0 <= names['metrics']['coco/bbox_mAP'] <= 1
    assert [form['label'] for form in names['report']['forms']] == [
        'dense, trained form (fp32)',
        'dense, deployed (fp32)',
        'HetConv, trained form (fp32)',
        'HetConv, deployed (fp32)',
    ]
    assert all(form['ms'] > 0 for form in names['report']['forms'])
    assert len(names['found'].boxes) == len(names['found'].names)
    x = torch.rand(1, 32, 5, 5)
    wanted = names['public']['gwc'](x) + names['public']['pwc'](x)
    torch.testing.assert_close(names['layer'](x), wanted)
