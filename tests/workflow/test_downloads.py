"""Pre-trained weights without a network."""

from urllib.error import URLError

import pytest
import torch
from mmengine.config import Config

from mmdet_hetconv.utils.errors import UserError
from mmdet_hetconv.workflow.checkpoints.checkpoint import read_weights
from mmdet_hetconv.workflow.config import downloads
from mmdet_hetconv.workflow.config.downloads import explained_download
from mmdet_hetconv.zoo import CONFIGS


def failing(name, checkpoint, error):
    model = dict(backbone=dict(init_cfg=dict(type='Pretrained', checkpoint=checkpoint)))
    path = CONFIGS / name if name else None
    with explained_download(Config(dict(model=model), filename=path and str(path))):
        raise error


@pytest.mark.parametrize(
    'name, checkpoint, file, instead',
    [
        (
            *('faster_rcnn_het_r18_full.py', 'torchvision://resnet18', 'resnet18-'),
            'faster_rcnn_het_r18_scratch.py',
        ),
        (
            *('faster_rcnn_het_r50_full_voc.py', 'torchvision://resnet50', 'resnet50-'),
            'faster_rcnn_het_r50_scratch_voc.py',
        ),
        (
            *('faster_rcnn_het_vgg16.py', 'open-mmlab://vgg16_caffe', 'vgg16_caffe-'),
            'faster_rcnn_het_vgg16_scratch.py',
        ),
        ('', 'https://a.org/b/c.pth?d=1', 'c.pth', 'init_cfg=None'),
    ],
)
def test_file_place_and_a_config_without(name, checkpoint, file, instead, tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    # They come with the package torchvision.
    known = {kind: f'https://a.org/{kind}-0.pth' for kind in ('resnet18', 'resnet50')}
    monkeypatch.setitem(downloads._ADDRESSES, 'torchvision', lambda: known)
    with pytest.raises(UserError) as caught:
        failing(name, checkpoint, URLError('Name or service not known'))
    message = str(caught.value)
    assert message.startswith(f'pre-trained weights {file}')
    assert 'Name or service not known' in message
    assert str(tmp_path / 'hub' / 'checkpoints') in message
    assert instead in message


def test_a_checkpoint_for_a_tool(tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    message = f'a.pth cannot be downloaded: .*refused.*put it into {tmp_path}/hub/checkpoints'
    with pytest.raises(UserError, match=message):
        read_weights('http://127.0.0.1:9/a.pth')


def test_what_is_no_download_passes(tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    assert torch.hub.get_dir() == str(tmp_path / 'hub')
    with pytest.raises(ConnectionError):
        failing('faster_rcnn_het_r18.py', 'here.pth', ConnectionError('another'))
