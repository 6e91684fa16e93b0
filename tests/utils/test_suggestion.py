"""Mistyped names of files."""

import pytest

from mmdet_hetconv.utils.errors import UserError
from mmdet_hetconv.utils.suggestion import did_you_mean_file
from mmdet_hetconv.workflow.checkpoints.checkpoint import read_checkpoint
from mmdet_hetconv.workflow.config.configs import read_config
from mmdet_hetconv.zoo import CONFIGS


def test_a_config(tmp_path):
    with pytest.raises(UserError, match='does not exist; did you mean .*/faster_rcnn_het_r50.py'):
        read_config(str(CONFIGS / 'faster_rcnn_het_r5.py'))
    # From any folder, as with config_path().
    with pytest.raises(UserError, match=r'did you mean .*/ssd300_het_vgg16.py\?'):
        read_config(str(tmp_path / 'ssd300_het_vg16.py'))
    with pytest.raises(UserError, match='something_else.py does not exist$'):
        read_config(str(tmp_path / 'something_else.py'))


def test_a_checkpoint_and_its_folder(tmp_path):
    (tmp_path / 'own').mkdir()
    (tmp_path / 'own' / 'epoch_12.pth').touch()
    with pytest.raises(UserError, match=f'did you mean {tmp_path}/own/epoch_12.pth'):
        read_checkpoint(tmp_path / 'own' / 'epoch12.pth')
    with pytest.raises(UserError, match=f'did you mean {tmp_path}/own/epoch_12.pth'):
        read_checkpoint(tmp_path / 'ovn' / 'epoch_12.pth')
    assert did_you_mean_file('/nowhere/at/all.pth') == ''
