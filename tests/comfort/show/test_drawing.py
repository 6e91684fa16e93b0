"""tools/test.py --show-dir: a file for every image, in its own folder."""

import json

import pytest
import torch
from mmengine.config import Config

from mmdet_hetconv.analysis import build_detector
from mmdet_hetconv.comfort.show.drawing import check_draws
from mmdet_hetconv.utils.errors import UserError
from tests import tiny
from tests.tools.conftest import fresh_process  # noqa: F401
from tests.tools.entry import evaluate


def test_images_of_one_name_in_several_folders(tmp_path):
    coco = tiny.write_coco(tmp_path / 'coco')
    path = coco / 'annotations' / 'instances_val2017.json'
    content = json.loads(path.read_text())
    names = ['f0/1.jpg', 'f1/1.jpg', '1.jpg']
    for image, name in zip(content['images'], names):
        old = coco / 'val2017' / image['file_name']
        (coco / 'val2017' / name).parent.mkdir(exist_ok=True)
        old.rename(coco / 'val2017' / name)
        image['file_name'] = name
    path.write_text(json.dumps(content))

    config = tiny.write_config(tmp_path / 'tiny.py')
    cfg = Config.fromfile(config)
    cfg.model.roi_head.bbox_head.num_classes = 2
    state = build_detector(cfg.model).state_dict()
    torch.save(dict(state_dict=state), tmp_path / 'tiny.pth')
    work = tmp_path / 'work'
    evaluate(
        [
            *(str(config), str(tmp_path / 'tiny.pth')),
            *('--data-root', str(coco), '--work-dir', str(work)),
            *('--show-dir', 'drawn', '--cfg-options', *tiny.SCALES),
        ]
    )
    (drawn,) = work.glob('*/drawn')
    files = [p.relative_to(drawn).as_posix() for p in drawn.rglob('*.jpg')]
    assert sorted(files) == sorted(names)


def test_a_config_without_the_hook():
    with pytest.raises(UserError, match='need default_hooks.visualization'):
        check_draws(Config(dict(default_hooks=dict())))
    check_draws(Config(dict(default_hooks=dict(visualization=dict(type='DetVisualizationHook')))))
