"""tools/infer.py: images, folders, videos, cameras, and bad input."""

import json
import pickle
import re
import shutil

import cv2
import numpy as np
import pytest
from mmdet.apis import DetInferencer
from mmengine.config import Config
from pycocotools.coco import COCO

from mmdet_hetconv.comfort.show import sources
from mmdet_hetconv.comfort.show.ground_truth import GroundTruth
from tests import tiny
from tests.tools.entry import error_of, load_main

infer = load_main('infer')


def run(world, *argv, detector='het'):
    infer([str(word) for word in (*getattr(world, detector), *argv)])


def fails(world, *argv, detector='het'):
    return error_of(infer, *getattr(world, detector), *argv)


def video(path, frames=5):
    """Frames of the size of tiny's images."""
    code = cv2.VideoWriter_fourcc(*'mp4v')
    writer = cv2.VideoWriter(str(path), code, 10, tiny.SIZE)
    for number in range(frames):
        tiny.draw(path.with_suffix('.png'), number)
        writer.write(cv2.imread(str(path.with_suffix('.png'))))
    writer.release()
    path.with_suffix('.png').unlink()
    return path


def frames_of(path):
    capture = cv2.VideoCapture(str(path))
    frames = []
    while True:
        there, frame = capture.read()
        if not there:
            return frames
        frames.append(frame)


def test_one_image_as_mmdet_detects_in_it(world, tmp_path):
    image = world.images / 'val_1.jpg'
    out = tmp_path / 'out.json'
    run(world, image, '--json', out)
    found = json.loads(out.read_text())

    cfg = Config.fromfile(world.het[0])
    cfg.model.roi_head.bbox_head.num_classes = 2
    stock = DetInferencer(cfg, str(world.het[1]), device='cpu')
    want = stock(str(image), no_save_vis=True)['predictions'][0]
    assert len(found) == len(want['scores']) > 20
    for entry, box, score, label in zip(found, want['bboxes'], want['scores'], want['labels']):
        x, y, w, h = entry['bbox']
        np.testing.assert_allclose([x, y, x + w, y + h], box, atol=2e-3)
        assert entry['score'] == pytest.approx(score, abs=1e-5)
        assert entry['category_id'] == label + 1
        assert entry['image_id'] == 'val_1.jpg'
    assert list(tmp_path.iterdir()) == [out]  # nothing drawn


@pytest.fixture
def folder(world, tmp_path):
    """Two images, one more in a folder, three that are broken."""
    path = tmp_path / 'folder'
    shutil.copytree(world.images, path)
    shutil.copy(path / 'val_0.jpg', path / 'of_no_file.jpg')
    (path / 'deep').mkdir()
    (path / 'val_2.jpg').rename(path / 'deep' / 'val_2.jpg')
    whole = (path / 'val_0.jpg').read_bytes()
    (path / 'half.jpg').write_bytes(whole[: len(whole) // 2])
    (path / 'a_empty.png').touch()
    (path / 'hollow.jpg').write_bytes(b'\xff\xd8' + b'0' * 40 + b'\xff\xd9')
    (path / 'notes.txt').write_text('no image')
    return path


def test_folder_with_broken_images(world, folder, tmp_path):
    out, drawn = tmp_path / 'out.json', tmp_path / 'drawn'
    message = fails(
        world,
        *(folder, '--json', out, '--out-dir', drawn, '--batch-size', 2),
        *('--ann-file', write_annotations(world, folder, tmp_path)),
        *('--score-thr', 0.1),
    )
    for name in ('half.jpg is truncated', 'a_empty.png is empty', 'hollow'):
        assert name in message
    files = {p.relative_to(drawn).as_posix() for p in drawn.rglob('*.*')}
    assert files == {'val_0.jpg', 'val_1.jpg', 'deep/val_2.jpg'}
    picture = cv2.imread(str(drawn / 'val_0.jpg'))
    assert picture.shape[:2] == tiny.SIZE[::-1]
    assert (
        np.abs(picture.astype(int) - cv2.imread(str(folder / 'val_0.jpg'))).max() > 60
    )  # boxes are drawn
    truth = COCO(str(world.ann_file))
    found = truth.loadRes(str(out))
    assert {a['image_id'] for a in found.dataset['annotations']} == {1, 2, 3}
    assert set(found.getCatIds()) == {3, 4}
    categories = {a['category_id'] for a in found.dataset['annotations']}
    assert categories <= {3, 4}


def write_annotations(world, folder, tmp_path):
    """tiny's annotations, which have the broken images too."""
    content = json.loads(world.ann_file.read_text())
    for number, name in enumerate(('half.jpg', 'a_empty.png', 'hollow.jpg')):
        content['images'].append(dict(id=90 + number, file_name=name, width=9, height=9))
    path = tmp_path / 'annotations.json'
    path.write_text(json.dumps(content))
    return path


def test_annotation_file_without_annotations(world, tmp_path):
    """As of COCO's test-dev: only ids are taken from it."""
    content = json.loads(world.ann_file.read_text())
    del content['annotations']
    path = tmp_path / 'image_info_test-dev.json'
    path.write_text(json.dumps(content))
    out = tmp_path / 'out.json'
    run(world, world.images, '--ann-file', path, '--json', out)
    found = json.loads(out.read_text())
    assert {entry['image_id'] for entry in found} == {1, 2, 3}
    assert {entry['category_id'] for entry in found} <= {3, 4}


def test_inference_form_detects_the_same(world, tmp_path):
    found = []
    for name, flags in (('plain', ()), ('deployed', ('--deploy',))):
        out = tmp_path / f'{name}.json'
        run(world, world.images, '--json', out, *flags)
        found.append(json.loads(out.read_text()))
    plain, deployed = found
    assert len(plain) == len(deployed) > 60
    for mine, theirs in zip(plain, deployed):
        assert mine['score'] == pytest.approx(theirs['score'], abs=1e-3)


def test_video(world, tmp_path):
    out, drawn = tmp_path / 'out.json', tmp_path / 'drawn'
    path = video(tmp_path / 'clip.mp4')
    run(world, *(path, '--json', out, '--out-dir', drawn, '--batch-size', 2))
    frames = frames_of(drawn / 'clip.mp4')
    assert [frame.shape[1::-1] for frame in frames] == [tiny.SIZE] * 5
    ids = [entry['image_id'] for entry in json.loads(out.read_text())]
    assert sorted(set(ids)) == [0, 1, 2, 3, 4]


def test_camera_ends_with_an_interrupt(world, tmp_path, monkeypatch):
    """There is no camera here: device 0 is a video that never ends."""
    frames = frames_of(video(tmp_path / 'clip.mp4'))
    opened = []

    class Camera:
        def __init__(self, device):
            opened.append(device)

        def isOpened(self):  # noqa: N802, OpenCV's name
            return True

        def get(self, _):
            return -1.0  # what drivers answer that do not know

        def read(self):
            if not frames:
                raise KeyboardInterrupt
            return True, frames.pop()

        def release(self):
            opened.append('released')

    monkeypatch.setattr(sources.cv2, 'VideoCapture', Camera)
    out = tmp_path / 'out.json'
    run(world, '0', '--json', out)
    assert opened == [0, 'released']
    ids = {entry['image_id'] for entry in json.loads(out.read_text())}
    assert ids == {0, 1, 2, 3, 4}


def truncated_video(world, path):
    whole = video(path / 'clip.mp4').read_bytes()
    (path / 'clip.mp4').write_bytes(whole[: len(whole) // 2])
    return (path / 'clip.mp4',)


def text_as_image(world, path):
    (path / 'a.jpg').write_text('no image')
    return (path / 'a.jpg',)


def unknown_class(world, path):
    content = json.loads(world.ann_file.read_text())
    content['categories'][0]['name'] = 'ring'
    (path / 'a.json').write_text(json.dumps(content))
    return (world.images, '--json', path / 'o.json', '--ann-file', (path / 'a.json'))


BAD = {
    'missing': (lambda w, p: (p / 'no.jpg',), 'no.jpg does not exist'),
    'folder without images': (lambda w, p: (p,), 'has no image'),
    'broken image': (text_as_image, 'a.jpg is not an image'),
    'broken video': (truncated_video, 'neither an image nor a video'),
    'no such camera': (lambda w, p: ('99',), 'camera 99 cannot be opened'),
    'no such stream': (
        lambda w, p: ('http://127.0.0.1:9/a.mp4',),
        'stream http://127.0.0.1:9/a.mp4 cannot be opened',
    ),
    'onto the input': (lambda w, p: (w.images, '--out-dir', w.images), 'would be overwritten'),
    'JSON is a folder': (lambda w, p: (w.images, '--json', p), 'is a folder, name a file'),
    'no annotation file': (
        lambda w, p: (w.images, '--ann-file', p / 'a.json'),
        'a.json does not exist',
    ),
    'image without annotation': (
        lambda w, p: (*(w.path / 'coco' / 'train2017', '--ann-file', w.ann_file),),
        'names no image in',
    ),
    'annotated video': (
        lambda w, p: (video(p / 'c.mp4'), '--ann-file', w.ann_file),
        'not for a video',
    ),
    'class without category': (unknown_class, "'disc' .* no category"),
}


@pytest.mark.parametrize('case', BAD)
def test_bad_input(world, tmp_path, case, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make, message = BAD[case]
    (tmp_path / 'in').mkdir()
    argv = make(world, tmp_path / 'in')
    assert re.search(message, fails(world, *argv))


def test_checkpoint_is_not_unpickled(world, tmp_path):
    path = tmp_path / 'weights.pth'
    path.write_bytes(pickle.dumps(shutil.rmtree, 2))
    argv = (world.het[0], path, world.images, '--json', tmp_path / 'o.json')
    assert 'refused' in error_of(infer, *argv)


def test_checkpoint_of_another_model(world, tmp_path):
    argv = (world.dense[0], world.het[1], world.images)
    message = error_of(infer, *argv, '--json', tmp_path / 'o.json')
    assert 'is a HetConv in the checkpoint' in message


def test_images_of_one_number_keep_ids_of_their_own(world, tmp_path):
    folder, out = tmp_path / 'images', tmp_path / 'out.json'
    for name in ('f0/1.jpg', 'f1/1.jpg'):
        tiny.draw(folder / name, 0)
    run(world, folder, '--json', out)
    ids = {entry['image_id'] for entry in json.loads(out.read_text())}
    assert ids == {'f0/1.jpg', 'f1/1.jpg'}


@pytest.mark.parametrize('name', ['a.jfif', 'without_ending'])
def test_images_whose_ending_opencv_does_not_write(world, tmp_path, name, monkeypatch):
    lines = []
    monkeypatch.setattr('mmdet_hetconv.comfort.show.infer.announce', lines.append)
    shutil.copy(world.images / 'val_1.jpg', tmp_path / name)
    run(world, tmp_path / name, '--out-dir', tmp_path / 'out', '--score-thr', 0.4)
    assert [path.name for path in (tmp_path / 'out').iterdir()] == [f'{name}.jpg']
    said = '\n'.join(lines)
    assert re.search(rf'{name}: \d+ objects \(\d+ \w+', said)
    assert re.search(r'1 pictures, \d+ ms each; of a score of at least 0.4: \d+ objects', said)


def test_a_name_that_two_folders_have_is_not_taken_for_the_annotated_one(world, tmp_path):
    truth = GroundTruth(str(world.ann_file))
    (number,) = truth.image_ids(['val_1.jpg']).values()
    assert truth.image_ids(['a/val_1.jpg']) == {'a/val_1.jpg': number}
    assert truth.image_ids(['a/val_1.jpg', 'b/val_1.jpg']) == {}
    assert truth.image_ids(['a/val_1.jpg', 'val_1.jpg']) == {'val_1.jpg': number}
