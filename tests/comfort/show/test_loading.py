"""A detector from one file."""

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config

import mmdet_hetconv
from mmdet_hetconv.comfort.show.inferencer import HetInferencer
from mmdet_hetconv.utils.errors import UserError
from mmdet_hetconv.workflow import deploy


@pytest.fixture(scope='module')
def deployed(world):
    config, weights = world.het
    cfg = Config.fromfile(config)
    cfg.model.roi_head.bbox_head.num_classes = 2
    deploy(cfg, str(weights), world.path / 'deployed.pth')
    return world.path / 'deployed.pth'


def test_it_detects_as_the_inferencer_does(world, deployed, capsys, tmp_path):
    detector = mmdet_hetconv.load(deployed, score_thr=0.2)
    assert detector.classes == ('disc', 'bar')
    path = sorted(world.images.iterdir())[0]
    found = detector(path)
    (sample,) = HetInferencer(str(world.het[0]), str(deployed), True).detect(
        [cv2.imread(str(path))]
    )
    kept = sample.pred_instances[sample.pred_instances.scores >= 0.2]
    assert len(found) == len(kept) > 0
    order = kept.scores.argsort(descending=True)
    np.testing.assert_allclose(found.scores, kept.scores[order], atol=1e-6)
    np.testing.assert_allclose(found.boxes, kept.bboxes[order], atol=1e-3)
    assert found.names == tuple(detector.classes[label] for label in found.labels)
    printed = capsys.readouterr().out
    assert printed.startswith(f'{path.name}: {len(found)} objects\n  {found.names[0]} 0.')
    (picture,) = detector.show(tmp_path)
    assert picture == tmp_path / path.name
    assert cv2.imread(str(picture)).shape == cv2.imread(str(path)).shape


def test_a_folder_and_an_array(world, deployed):
    detector = mmdet_hetconv.load(str(deployed))
    paths = sorted(world.images.iterdir())
    every = detector(world.images)
    assert [found.image for found in every] == [path.name for path in paths]
    one = detector(cv2.imread(str(paths[0])))
    np.testing.assert_array_equal(one.scores, every[0].scores)


def test_a_checkpoint_without_a_config_needs_one(world):
    config, weights = world.het
    with pytest.raises(UserError, match='keeps no config with model: name its config'):
        mmdet_hetconv.load(weights)
    assert mmdet_hetconv.load(weights, config).classes == ('disc', 'bar')


def test_the_config_is_read_and_not_run(world, deployed, tmp_path):
    content = torch.load(deployed, weights_only=True)
    content['meta']['cfg'] = (
        f'import os\nos.mkdir({str(tmp_path / "run")!r})\n' + content['meta']['cfg']
    )
    torch.save(content, tmp_path / 'bad.pth')
    mmdet_hetconv.load(tmp_path / 'bad.pth')
    assert not (tmp_path / 'run').exists()


def test_what_is_no_image(world, deployed, tmp_path):
    detector = mmdet_hetconv.load(deployed)
    with pytest.raises(UserError, match='call the detector with an image first'):
        detector.show(tmp_path)
    (tmp_path / 'a.jpg').write_bytes(b'no image')
    with pytest.raises(UserError, match='a.jpg'):
        detector(tmp_path / 'a.jpg')
    with pytest.raises(UserError, match='does not exist'):
        detector(tmp_path / 'b.jpg')
