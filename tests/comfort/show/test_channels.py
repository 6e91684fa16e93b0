"""Detectors of one, three and four channels, through every tool."""

import json

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config

from mmdet_hetconv.analysis import build_detector
from mmdet_hetconv.comfort.show.forms import HET, Forms
from mmdet_hetconv.utils.image_channels import image_channels
from tests import tiny
from tests.tools.entry import error_of, load_main

COLOR_TYPES = {1: 'grayscale', 4: 'unchanged'}

EXTRA = """
model.update(data_preprocessor=dict(
    _delete_=True, type='DetDataPreprocessor', mean=[110.0], std=[60.0],
    bgr_to_rgb=False, pad_size_divisor=32))
model['backbone']['in_channels'] = {channels}
test_dataloader['dataset'] = dict(
    metainfo=dict(classes=('disc', 'bar')),
    pipeline=[
        dict(type='LoadImageFromFile', color_type='{color_type}'),
        dict(type='Resize', scale=(64, 48), keep_ratio=True),
        dict(type='PackDetInputs'),
    ])
model['roi_head']['bbox_head']['num_classes'] = 2
"""


class Detector:
    """Config, checkpoint and a folder with an image of its channels."""

    def __init__(self, path, channels):
        self.channels = channels
        extra = EXTRA.format(channels=channels, color_type=COLOR_TYPES[channels])
        self.config = tiny.write_config(path / 'tiny.py', extra)
        cfg = Config.fromfile(self.config)
        torch.manual_seed(0)
        self.model = build_detector(cfg.model)
        torch.nn.init.normal_(self.model.roi_head.bbox_head.fc_cls.weight, std=1.0)
        self.weights = path / 'tiny.pth'
        meta = dict(dataset_meta=dict(classes=tiny.CLASSES))
        torch.save(dict(state_dict=self.model.state_dict(), meta=meta), self.weights)
        self.images = path / 'images'
        tiny.draw(self.images / 'a.png', 0)
        bgr = cv2.imread(str(self.images / 'a.png'))
        if channels == 4:
            alpha = np.full((*bgr.shape[:2], 1), 130, np.uint8)
            alpha[10:20, 10:20] = 255
            bgra = np.concatenate([bgr, alpha], axis=2)
            cv2.imwrite(str(self.images / 'a.png'), bgra)
        self.pair = (str(self.config), str(self.weights))

    @property
    def image(self):
        return self.images / 'a.png'


@pytest.fixture(scope='module', params=[1, 4])
def detector(request, tmp_path_factory):
    path = tmp_path_factory.mktemp('channels')
    return Detector(path, request.param)


def run(name, *argv):
    load_main(name)([str(word) for word in argv])


def run_argv(monkeypatch, name, *argv):
    """A tool that reads the command line by itself."""
    monkeypatch.setattr('sys.argv', [name, *map(str, argv)])
    load_main(name)()


def stem_macs(detector):
    """Of 7 x 7, 16 filters, stride 2, at 64 x 96."""
    return 49 * 16 * detector.channels * 32 * 48


def test_channels_are_those_of_the_first_convolution(detector):
    assert image_channels(detector.model) == detector.channels
    assert image_channels(detector.model.backbone) == detector.channels
    assert image_channels(torch.nn.ReLU()) == 3


def test_channels_behind_a_focus():
    from mmdet.models.backbones import CSPDarknet

    with torch.device('meta'):
        assert image_channels(CSPDarknet(widen_factor=0.25)) == 3


def test_summary_and_get_flops(detector, monkeypatch, tmp_path, capsys):
    size = ('--shape', 64, 96)
    run_argv(monkeypatch, 'summary', detector.config, *size)
    stem = next(line for line in capsys.readouterr().out.splitlines() if 'backbone.conv1 ' in line)
    assert f'{detector.channels} -> 16, 7 x 7' in stem
    assert f'{stem_macs(detector) / 1e6:.3f} M' in stem
    out = tmp_path / 'flops.json'
    run_argv(monkeypatch, 'get_flops', detector.config, *size, '--json', out)
    assert json.loads(out.read_text())[-1]['component'] == 'total'


def test_benchmark(detector, tmp_path):
    run(
        'benchmark',
        *(detector.config, '--shape', 64, 96, '--rounds', 2),
        *('--whole', '--out', tmp_path / 'out'),
    )
    assert len((tmp_path / 'out.csv').read_text().splitlines()) == 5


def test_deploy_tunes_and_export_traces(detector, tmp_path, capsys):
    deployed = tmp_path / 'deployed.pth'
    run('deploy', *detector.pair, '--out', deployed, '--tune', 64, 96)
    graph = tmp_path / 'graph.onnx'
    run('export_onnx', *(detector.config, deployed, '--out', graph, '--size', 64, 96))
    import onnx

    (images,) = onnx.load(graph).graph.input
    assert images.type.tensor_type.shape.dim[1].dim_value == detector.channels


def test_infer_sees_every_channel_and_draws(detector, tmp_path):
    out, drawn = tmp_path / 'out.json', tmp_path / 'drawn'
    run(
        'infer',
        *(*detector.pair, detector.images, '--json', out),
        *('--out-dir', drawn, '--score-thr', 0.0),
    )
    found = json.loads(out.read_text())
    flag = cv2.IMREAD_UNCHANGED
    if detector.channels == 1:
        flag = cv2.IMREAD_GRAYSCALE
    pixels = cv2.imread(str(detector.image), flag)
    pixels = torch.tensor(pixels).reshape(48, 64, -1).permute(2, 0, 1)
    padded = torch.zeros(1, detector.channels, 64, 64)
    padded[..., :48, :] = (pixels - 110.0) / 60
    from mmdet.structures import DetDataSample

    sample = DetDataSample(
        metainfo=dict(img_shape=(48, 64), ori_shape=(48, 64), scale_factor=(1.0, 1.0))
    )
    with torch.no_grad():
        (want,) = detector.model.eval().predict(padded, [sample])
    want = want.pred_instances.scores.sort(descending=True).values
    scores = sorted((entry['score'] for entry in found), reverse=True)
    assert len(scores) > 10
    np.testing.assert_allclose(scores, want.numpy(), atol=1e-4)
    picture = cv2.imread(str(drawn / 'a.png'), cv2.IMREAD_UNCHANGED)
    assert picture.shape == (48, 64, 3)


def test_infer_names_an_image_of_other_channels(detector, tmp_path):
    if detector.channels == 1:
        return  # grey is made of every image
    folder = tmp_path / 'images'
    tiny.draw(folder / 'plain.png', 0)
    (folder / 'a.png').write_bytes(detector.image.read_bytes())
    out = tmp_path / 'out.json'
    message = error_of(load_main('infer'), *detector.pair, folder, '--json', out)
    assert 'plain.png has 3 channels' in message
    assert {e['image_id'] for e in json.loads(out.read_text())} == {'a.png'}


def test_infer_in_a_video(detector, tmp_path):
    code = cv2.VideoWriter_fourcc(*'mp4v')
    clip = tmp_path / 'clip.mp4'
    writer = cv2.VideoWriter(str(clip), code, 10, tiny.SIZE)
    tiny.draw(tmp_path / 'frame.png', 0)
    writer.write(cv2.imread(str(tmp_path / 'frame.png')))
    writer.release()
    argv = (*detector.pair, clip, '--json', tmp_path / 'out.json')
    if detector.channels == 4:
        message = error_of(load_main('infer'), *argv)
        assert 'clip.mp4 has 3 channels' in message
    else:
        run('infer', *argv)
        assert json.loads((tmp_path / 'out.json').read_text())


def test_compare(detector, tmp_path, world):
    argv = ('--a', *detector.pair, '--images', detector.images)
    argv += ('--out', tmp_path / 'out', '--rounds', 2)
    run('compare', *argv, '--b', *detector.pair)
    assert (tmp_path / 'out' / 'index.html').is_file()
    message = error_of(load_main('compare'), *argv, '--b', *world.het)
    assert f"'{COLOR_TYPES[detector.channels]}'" in message


def test_web_demo(detector):
    forms = Forms(*detector.pair)
    found = forms.detect(str(detector.image), HET)
    assert forms.draw(found, HET, 0.0).shape == (48, 64, 3)
