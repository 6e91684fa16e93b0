"""Every mistake of a user gives one sentence and exit status 1."""

import json
import os
import pickle
import re
import shutil
import struct
import subprocess
import sys
from importlib.util import find_spec

import cv2
import mmcv
import numpy as np
import pytest
import torch
from PIL import Image

from tests import tiny

from .entry import TOOLS, error_of, evaluate, train


class World:
    """A COCO and a VOC data set, a config, and what a command line needs."""

    def __init__(self, path):
        self.path = path
        self.coco = tiny.write_coco(path / 'coco')
        self.voc = tiny.write_voc(path / 'voc')
        self.config = tiny.write_config(path / 'tiny.py')
        self.work = path / 'work'
        self.json = self.coco / 'annotations' / 'instances_train2017.json'
        self.xml = self.voc / 'Annotations' / 'train_1.xml'
        self.image = self.coco / 'train2017' / 'train_2.jpg'

    def renamed(self, old, new):
        """With another name of an annotation file."""
        folder = self.coco / 'annotations'
        (folder / old).rename(folder / new)
        return self.argv()

    def argv(self, *pairs, data=None):
        return (
            self.config,
            '--data-root',
            data or self.coco,
            '--work-dir',
            self.work,
            '--cfg-options',
            *tiny.SCALES,
            *pairs,
        )

    def set(self, *pairs):
        """Cases of --cfg-options."""
        return self.argv(*pairs)

    def write(self, extra):
        """Cases of a config with a few lines more."""
        tiny.write_config(self.config, extra)
        return self.argv()

    def edit(self, change):
        """Cases of a COCO file; change gets its content."""
        content = json.loads(self.json.read_text())
        change(content)
        self.json.write_text(json.dumps(content))
        return self.argv()

    def replace(self, path, content, data=None):
        """Cases of a file with another content, None for no file."""
        if content is None:
            path.unlink()
        elif callable(content):
            path.write_bytes(content(path.read_bytes()))
        else:
            path.write_bytes(content)
        return self.argv(data=data)

    def in_xml(self, old, new):
        text = self.xml.read_text()
        assert old in text
        self.xml.write_text(text.replace(old, new, 1))
        return self.argv(data=self.voc)


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def half(data):
    return data[: len(data) // 2]


def png(data):
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return cv2.imencode('.png', image)[1].tobytes()


def large(data):
    """A PNG whose header promises 4.9 billion pixels."""
    side = struct.pack('>I', 70000)
    return data[:16] + side + side + data[24:]


P = 'model.backbone.conv_cfg.p'
CLASSES = 'train_dataloader.dataset.metainfo.classes'
TRAIN = {
    # The layer
    'p=0': (lambda w: w.set(f'{P}=0'), 'model.backbone.conv_cfg: .*p=0'),
    'p=-4': (lambda w: w.set(f'{P}=-4'), 'model.backbone.conv_cfg: .*p=-4'),
    'p float': (lambda w: w.set(f'{P}=4.0'), r'p must be .*p=4\.0'),
    'p None': (lambda w: w.set(f'{P}=None'), 'p must be .*p=None'),
    'p bool': (lambda w: w.set(f'{P}=True'), 'p must be .*p=True'),
    'p text': (
        lambda w: w.write("model['backbone']['conv_cfg']['p'] = '4'\n"),
        "model.backbone.conv_cfg: .*p='4'",
    ),
    'p fits nothing': (
        lambda w: w.set(f'{P}=7'),
        r'model\.backbone\.conv_cfg\.p=7 fits no convolution',
    ),
    'arrangement': (
        lambda w: w.set('model.backbone.conv_cfg.arrangement=blokced'),
        "model.backbone.conv_cfg: .*'blokced'",
    ),
    'p list': (lambda w: w.set(f'{P}=[4,8]'), r'model.backbone.conv_cfg: .*p=\[4, 8\]'),
    'arrangement that is a number': (
        lambda w: w.set('model.backbone.conv_cfg.arrangement=4'),
        'model.backbone.conv_cfg: .*got 4',
    ),
    'argument of HetConv': (
        lambda w: w.set('model.backbone.conv_cfg.part=4'),
        "unexpected keyword argument 'part'",
    ),
    # The config
    'no config': (lambda w: (w.path / 'no.py', '--work-dir', w.work), 'no.py does not exist'),
    'config is a folder': (lambda w: (w.path, '--work-dir', w.work), 'does not exist'),
    'config does not parse': (
        lambda w: w.write('model = dict(\n'),
        'tiny.py cannot be read: SyntaxError',
    ),
    'config does not run': (
        lambda w: w.write('x = 1 / 0\n'),
        'tiny.py cannot be read: ZeroDivisionError',
    ),
    'no such base': (
        lambda w: w.replace(w.config, b"_base_ = 'mmdet::no/such.py'\n"),
        'tiny.py cannot be read: .*such',
    ),
    'no model': (lambda w: w.replace(w.config, b'x = 1\n'), 'tiny.py has no model'),
    'unknown type': (lambda w: w.set('model.backbone.type=HetResNext'), 'HetResNext is not in the'),
    'unknown depth': (lambda w: w.set('model.backbone.depth=19'), 'invalid depth 19'),
    'option into a list': (
        lambda w: w.set('train_dataloader.dataset.pipeline.99.x=1'),
        r'pipeline\.99\.x=1',
    ),
    'load_from': (lambda w: w.set('load_from=no.pth'), 'checkpoint no.pth does not exist'),
    'pretrained': (
        lambda w: w.write(
            "model['backbone']['init_cfg'] = dict(\n    type='Pretrained', checkpoint='no.pth')\n"
        ),
        r'model\.backbone\.init_cfg: checkpoint no\.pth does not exist',
    ),
    'address that cannot be reached': (
        lambda w: w.write(
            "model['backbone']['init_cfg'] = dict(\n"
            "    type='Pretrained', checkpoint='http://127.0.0.1:9/a.pth')\n"
        ),
        'pre-trained weights a.pth .* cannot be downloaded: .*refused.*put it into',
    ),
    'unknown key of the model': (
        lambda w: w.set('model.backbone.dept=18'),
        "unexpected keyword argument 'dept'",
    ),
    'number of stages': (
        lambda w: w.set('model.backbone.num_stages=9'),
        'tiny.py cannot be built: assert .*num_stages',
    ),
    'conv_cfg of an unknown type': (
        lambda w: w.set('model.backbone.conv_cfg.type=HedConv'),
        r'model\.backbone\.conv_cfg\.type=HedConv is not registered',
    ),
    'config in another encoding': (
        lambda w: w.replace(w.config, b'\xff\xfe# \xe9'),
        'tiny.py cannot be read: ',
    ),
    # Classes
    'num_classes': (
        lambda w: w.set('model.roi_head.bbox_head.num_classes=5'),
        r'bbox_head\.num_classes=5, but .* has 2 classes',
    ),
    'class that is no category': (
        lambda w: w.set(f'{CLASSES}=[disc,cube]'),
        "'cube' is no category of .*instances_train2017.json",
    ),
    'classes in another order': (
        lambda w: w.set(f'{CLASSES}=[bar,disc]'),
        'are not in the order of the categories',
    ),
    'classes as a text': (lambda w: w.set(f'{CLASSES}=disc'), "classes='disc' is neither a list"),
    # Annotation files
    'no annotation file': (
        lambda w: w.set('train_dataloader.dataset.ann_file=no.json'),
        'annotation file .*/no.json does not exist',
    ),
    'no annotation file to evaluate': (
        lambda w: w.set('val_evaluator.ann_file=no.json'),
        r'val_evaluator\.ann_file: .*no\.json does not exist',
    ),
    'only crowds': (
        lambda w: w.edit(lambda c: [b.update(iscrowd=1) for b in c['annotations']]),
        'instances_train2017.json: no box to learn from',
    ),
    'only small images': (
        lambda w: w.set('train_dataloader.dataset.filter_cfg.min_size=999'),
        '6 of 6 images of .*instances_train2017.json are not trained on',
    ),
    'categories that differ in white space': (
        lambda w: w.edit(lambda c: c['categories'][1].update(name=' disc ')),
        "two categories have the name 'disc'",
    ),
    'width and height exchanged': (
        lambda w: w.edit(lambda c: c['images'][2].update(width=48, height=64)),
        'train_2.jpg is loaded with 64 x 48 pixels, but .* has 48 x 64',
    ),
    'evaluation of other images': (
        lambda w: w.set(f'val_evaluator.ann_file={w.json}'),
        r'val_evaluator\.ann_file: .*instances_train2017.json',
    ),
    'empty JSON': (lambda w: w.replace(w.json, b''), 'instances_train2017.json is empty'),
    'truncated JSON': (
        lambda w: w.replace(w.json, half),
        'instances_train2017.json is not valid JSON',
    ),
    'JSON in another encoding': (
        lambda w: w.replace(w.json, b'\xff\xfe\xff{"images": "\xe9"}'),
        'instances_train2017.json is not valid JSON',
    ),
    'JSON list': (lambda w: w.replace(w.json, b'[]'), 'instances_train2017.json holds a list'),
    'no images': (
        lambda w: w.edit(lambda c: c.update(images=[])),
        'instances_train2017.json has no images',
    ),
    'no annotations': (
        lambda w: w.edit(lambda c: c.pop('annotations')),
        'instances_train2017.json has no annotations',
    ),
    'annotation of no image': (
        lambda w: w.edit(lambda c: c['annotations'][0].update(image_id=99)),
        'annotation 1 has image_id=99',
    ),
    'annotation of no category': (
        lambda w: w.edit(lambda c: c['annotations'][1].update(category_id=9)),
        'annotation 2 has category_id=9',
    ),
    'annotation twice': (
        lambda w: w.edit(lambda c: c['annotations'][1].update(id=1)),
        'annotations holds the id 1 twice',
    ),
    'box of three numbers': (
        lambda w: w.edit(lambda c: c['annotations'][0].update(bbox=[1, 2, 3])),
        r'annotation 1 has bbox=\[1, 2, 3\]',
    ),
    'box of NaN': (
        lambda w: w.edit(lambda c: c['annotations'][0].update(bbox=[1, 2, 3, float('nan')])),
        r'annotation 1 has bbox=\[1, 2, 3, nan\]',
    ),
    'box of infinity': (
        lambda w: w.edit(lambda c: c['annotations'][0].update(bbox=[1, 2, float('inf'), 3])),
        r'annotation 1 has bbox=\[1, 2, inf, 3\]',
    ),
    'box that overflows': (
        lambda w: w.edit(lambda c: c['annotations'][0].update(bbox=[0, 0, 1e39, 9])),
        r'annotation 1 has bbox=\[0, 0, 1e\+39, 9\]',
    ),
    'box of negative width': (
        lambda w: w.edit(lambda c: c['annotations'][0].update(bbox=[9, 9, -3, 3])),
        r'annotation 1 has bbox=\[9, 9, -3, 3\], of negative width',
    ),
    'box of texts': (
        lambda w: w.edit(lambda c: c['annotations'][0].update(bbox=['1', '2', '3', '4'])),
        'annotation 1 has bbox=.*four finite numbers',
    ),
    'id that is a list': (
        lambda w: w.edit(lambda c: c['images'][0].update(id=[1])),
        r'images holds the id \[1\]',
    ),
    'image twice': (
        lambda w: w.edit(lambda c: c['images'][1].update(id=1)),
        'images holds the id 1 twice',
    ),
    'category twice': (
        lambda w: w.edit(lambda c: c['categories'][1].update(id=3)),
        'categories holds the id 3 twice',
    ),
    'category name twice': (
        lambda w: w.edit(lambda c: c['categories'][1].update(name='disc')),
        "two categories have the name 'disc'",
    ),
    'category without a name': (
        lambda w: w.edit(lambda c: c['categories'][0].pop('name')),
        'a category has the name None',
    ),
    'image name of a zero byte': (
        lambda w: w.edit(lambda c: c['images'][0].update(file_name='a\0b')),
        r"image 1 has file_name='a\\x00b'",
    ),
    'image name that is too long': (
        lambda w: w.edit(lambda c: c['images'][0].update(file_name='a' * 5000)),
        'instances_train2017.json names the image a',
    ),
    'image of more pixels than OpenCV reads': (
        lambda w: w.edit(lambda c: c['images'][0].update(width=10**5, height=10**5)),
        'image 1 has 100000 x 100000 pixels',
    ),
    'mask that is a text': (
        lambda w: w.edit(lambda c: c['annotations'][0].update(segmentation='round')),
        "annotation 1 has segmentation='round'",
    ),
    'UTF-16': (
        lambda w: w.replace(w.json, lambda data: data.decode().encode('utf-16')),
        'instances_train2017.json is not valid JSON',
    ),
    'no area': (
        lambda w: w.edit(lambda c: c['annotations'][0].pop('area')),
        'annotation 1 has area=None',
    ),
    'image without width': (
        lambda w: w.edit(lambda c: c['images'][0].pop('width')),
        'image 1 has width=None',
    ),
    'no XML': (lambda w: w.replace(w.xml, None, w.voc), 'train_1.xml does not exist'),
    'empty XML': (lambda w: w.replace(w.xml, b' ', w.voc), 'train_1.xml is empty'),
    'truncated XML': (lambda w: w.replace(w.xml, half, w.voc), 'train_1.xml is not valid XML'),
    'white space around a name': (
        lambda w: w.in_xml('<name>disc', '<name> disc'),
        "train_1.xml: the name ' disc' of an object has white space",
    ),
    'XML without xmax': (
        lambda w: w.in_xml('<xmax>24</xmax>', ''),
        "train_1.xml: object 'disc' has xmax=''",
    ),
    'XML with xmax=wide': (
        lambda w: w.in_xml('<xmax>24</xmax>', '<xmax>wide</xmax>'),
        "train_1.xml: object 'disc' has xmax='wide'",
    ),
    'XML with xmax below xmin': (
        lambda w: w.in_xml('<xmax>24</xmax>', '<xmax>4</xmax>'),
        "train_1.xml: object 'disc' has xmax=4 below xmin=6",
    ),
    'XML with a box outside of the image': (
        lambda w: w.in_xml(
            '<xmin>6</xmin><ymin>12</ymin><xmax>24</xmax>',
            '<xmin>65</xmin><ymin>12</ymin><xmax>80</xmax>',
        ),
        "train_1.xml: object 'disc' is outside of the image, at xmin=65",
    ),
    'XML with xmax=nan': (
        lambda w: w.in_xml('<xmax>24</xmax>', '<xmax>nan</xmax>'),
        "train_1.xml: object 'disc' has xmax='nan'",
    ),
    'XML in an unknown encoding': (
        lambda w: w.replace(
            w.xml, lambda data: b'<?xml version="1.0" encoding="x-9"?>' + data, w.voc
        ),
        'train_1.xml is not valid XML: ',
    ),
    'image list in another encoding': (
        lambda w: w.replace(w.voc / 'ImageSets' / 'Main' / 'train.txt', b'\xff\xfe', w.voc),
        'train.txt is not a text',
    ),
    'XML without width': (
        lambda w: w.in_xml('<width>64</width>', ''),
        "train_1.xml: size has width=''",
    ),
    'empty image list': (
        lambda w: w.replace(w.voc / 'ImageSets' / 'Main' / 'train.txt', b'', w.voc),
        'train.txt is empty',
    ),
    # Images
    'no image': (
        lambda w: w.replace(w.image, None),
        'image .*train_2.jpg does not exist .*instances_train2017.json',
    ),
    'no image of VOC': (
        lambda w: w.replace(w.voc / 'JPEGImages' / 'val_1.jpg', None, data=w.voc),
        'image .*val_1.jpg does not exist .*val.txt',
    ),
    'truncated JPEG': (lambda w: w.replace(w.image, half), 'image .*train_2.jpg is truncated'),
    'JPEG without its last byte': (
        lambda w: w.replace(w.image, lambda data: data[:-2]),
        'image .*train_2.jpg is truncated',
    ),
    'truncated PNG': (
        lambda w: w.replace(w.image, lambda data: half(png(data))),
        'image .*train_2.jpg is truncated',
    ),
    'empty image': (lambda w: w.replace(w.image, b''), 'image .*train_2.jpg is empty'),
    'image of too many pixels': (
        lambda w: w.replace(w.image, lambda data: large(png(data))),
        'image .*train_2.jpg has 70000 x 70000 pixels, more than OpenCV',
    ),
    'folder for an image': (
        lambda w: (w.image.unlink(), w.image.mkdir(), w.argv())[-1],
        'image .*train_2.jpg cannot be read: Is a directory',
    ),
    'text for an image': (
        lambda w: w.replace(w.image, b'not an image'),
        'image .*train_2.jpg is not an image',
    ),
    # Own data
    'no data root': (lambda w: w.argv(data=w.path / 'nowhere'), 'nowhere is not a folder'),
    'data root without a data set': (
        lambda w: w.argv(data=w.coco / 'train2017'),
        'train_0.jpg, .*, and none of the layouts COCO',
    ),
    'nothing to train on': (
        lambda w: w.renamed('instances_train2017.json', 'instances_test2017.json'),
        'needs the splits train and val',
    ),
    # The machine
    'work dir under a file': (
        lambda w: (*w.argv(), '--work-dir', w.config / 'work'),
        'work dir .*tiny.py/work cannot be written to',
    ),
    'amp without a GPU': (lambda w: (*w.argv(), '--amp'), '--amp needs a GPU'),
    'slurm without a GPU': (
        lambda w: (*w.argv(), '--launcher', 'slurm'),
        '--launcher slurm needs a GPU',
    ),
    'interval in words': (
        lambda w: w.set('default_hooks.checkpoint.interval=often'),
        "default_hooks.checkpoint.interval is 'often', no whole number",
    ),
    'resume from nowhere': (
        lambda w: (*w.argv(), '--resume', w.path / 'no.pth'),
        'no.pth does not exist',
    ),
}
if torch.cuda.is_available():
    del TRAIN['amp without a GPU'], TRAIN['slurm without a GPU']


@pytest.mark.parametrize('case', TRAIN)
def test_train(world, case):
    arrange, wanted = TRAIN[case]
    message = error_of(train, *arrange(world))
    assert message.startswith('train.py: error: ')
    assert re.search(wanted, message), message
    assert not list(world.path.glob('**/*.pth'))
    assert not list(world.path.glob('**/last_checkpoint'))


class Malicious:
    """Its unpickling makes a folder."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def state_dict(world, *pairs):
    """The weights of the tiny model, drawn at random."""
    from mmdet.registry import MODELS
    from mmdet.utils import register_all_modules
    from mmengine.config import Config

    register_all_modules()
    cfg = Config.fromfile(world.config)
    cfg.merge_from_dict({'model.roi_head.bbox_head.num_classes': 2})
    cfg.merge_from_dict(dict(pairs))
    return MODELS.build(cfg.model).state_dict()


def save(world, content):
    path = world.path / 'weights.pth'
    torch.save(content, path)
    return path


def truncated(world):
    path = save(world, dict(state_dict=state_dict(world)))
    path.write_bytes(half(path.read_bytes()))
    return path


def text_file(world):
    path = world.path / 'weights.pth'
    path.write_text('these are no weights')
    return path


def bare_pickle(world):
    path = world.path / 'weights.pth'
    path.write_bytes(pickle.dumps(Malicious(world.path / 'owned'), 2))
    return path


def without(world, key):
    state = state_dict(world)
    del state[key]
    return save(world, dict(state_dict=state))


def of_model(world, *pairs):
    return save(world, dict(state_dict=state_dict(world, *pairs)))


def of_classes(world, classes):
    meta = dict(dataset_meta=dict(classes=classes))
    return save(world, dict(state_dict=state_dict(world), meta=meta))


EVALUATE = {
    'no checkpoint': (lambda w: w.path / 'no.pth', 'checkpoint .*no.pth does not exist'),
    'truncated': (truncated, 'weights.pth cannot be read, it is truncated'),
    'text': (text_file, 'weights.pth .*no checkpoint'),
    'list': (lambda w: save(w, [1, 2]), 'weights.pth is not a checkpoint'),
    'pickled code': (
        lambda w: save(w, dict(state_dict={}, x=Malicious(w.path / 'owned'))),
        r'weights.pth is refused: it holds posix\.mkdir, and loading',
    ),
    'bare pickle': (bare_pickle, 'weights.pth is refused: .*posix'),
    'pickled function': (
        lambda w: save(w, dict(state_dict={}, x=shutil.rmtree)),
        r'weights.pth is refused: it holds shutil\.rmtree',
    ),
    'other architecture': (
        lambda w: of_model(w, ('model.backbone.depth', 50)),
        r'weights.pth is not of the model in the config: .* do not fit',
    ),
    'a weight is missing': (
        lambda w: without(w, 'roi_head.bbox_head.fc_cls.bias'),
        r'roi_head\.bbox_head\.fc_cls\.bias is missing \(1 weights of',
    ),
    'other p': (
        lambda w: of_model(w, ('model.backbone.conv_cfg.p', 8)),
        r'backbone\.layer1\.0\.conv1 has p=8 in the checkpoint and p=4 here',
    ),
    'other arrangement': (
        lambda w: of_model(w, ('model.backbone.conv_cfg.arrangement', 'shifted')),
        r"has arrangement='shifted' in the checkpoint and 'blocked' here",
    ),
    'other number of classes': (
        lambda w: of_model(w, ('model.roi_head.bbox_head.num_classes', 7)),
        r'fc_cls\.weight',
    ),
    'other classes': (
        lambda w: of_classes(w, ('cat', 'dog')),
        "trained on the classes 'cat', 'dog', .* has 'disc', 'bar'",
    ),
}


@pytest.mark.parametrize('case', EVALUATE)
def test_evaluate(world, case):
    arrange, wanted = EVALUATE[case]
    config, *rest = world.argv()
    message = error_of(evaluate, config, arrange(world), *rest)
    assert message.startswith('test.py: error: ')
    assert re.search(wanted, message), message
    assert not (world.path / 'owned').exists()


def test_het_checkpoint_in_a_dense_config(world):
    path = of_model(world)
    config, *rest = world.argv('model.backbone.conv_cfg=None')
    message = error_of(evaluate, config, path, *rest)
    assert 'is a HetConv in the checkpoint and a plain' in message


def test_predictions_that_cannot_be_written(world):
    path = of_model(world)
    config, *rest = world.argv()
    out = ('--out', world.config / 'out.pkl')
    message = error_of(evaluate, config, path, *rest, *out)
    assert '--out' in message and 'tiny.py cannot be written to' in message


def test_resume_from_weights_alone(world):
    path = of_model(world)
    message = error_of(train, *world.argv(), '--resume', path)
    assert "weights.pth has no 'meta'" in message


def test_masks_without_segmentation(world):
    world.config.write_text("_base_ = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'\n")
    for data in (world.coco, world.voc):
        message = error_of(train, world.config, '--data-root', data, '--work-dir', world.work)
        assert 'have no segmentation' in message


@pytest.mark.skipif(find_spec('torchvision') is not None, reason='torchvision is installed')
def test_pretrained_by_torchvision_without_torchvision(world):
    argv = world.write(
        "model['backbone']['init_cfg'] = dict(\n"
        "    type='Pretrained', checkpoint='torchvision://resnet18')\n"
    )
    message = error_of(train, *argv)
    assert re.search(r'model\.backbone\.init_cfg\.checkpoint=', message)
    assert 'needs the package torchvision' in message


def odd_images(world):
    """Images as cameras and scanners make them; each can be trained on."""
    paths = sorted(world.image.parent.glob('train_*.jpg'))
    image = cv2.imread(str(paths[0]))
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    deep = image.astype(np.uint16) * 257
    alpha = np.dstack([image, grey])
    png = [cv2.imencode('.png', kind)[1] for kind in (deep, grey, alpha)]
    for path, data in zip(paths, png):
        path.write_bytes(data.tobytes())
    upright = Image.fromarray(image[..., ::-1])
    upright.convert('CMYK').save(paths[3], 'JPEG')
    tags = Image.Exif()
    tags[0x112] = 6  # to be turned by 90 degrees
    upright.rotate(90, expand=True).save(paths[4], 'JPEG', exif=tags)
    upright.convert('P').save(paths[5], 'PNG')


def test_odd_images_and_boxes(world, capsys):
    """They are learnt from, or left out with a warning, and the loss stays
    finite."""
    odd_images(world)
    content = json.loads(world.json.read_text())
    boxes = content['annotations']
    boxes[0].update(bbox=[-5, -5, 20, 20], area=400)  # partly outside
    boxes[1].update(bbox=[70, 60, 9, 9])  # outside
    boxes[2].update(bbox=[9, 9, 0, 0])
    boxes[3].update(area=0)
    boxes[4].update(bbox=[0, 0, 1000, 1000], area=10**6)
    world.json.write_text(json.dumps(content))
    train([str(word) for word in world.argv('train_cfg.max_epochs=1')])
    output = capsys.readouterr()
    assert '3 of 12 boxes are not learnt from' in output.out + output.err
    (path,) = world.work.glob('*/vis_data/scalars.json')
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    losses = [line['loss'] for line in lines if 'loss' in line]
    assert len(losses) == 3 and all(0 < loss < 100 for loss in losses)
    image = mmcv.imread(sorted(world.image.parent.glob('*_4.jpg'))[0])
    assert image.shape == (48, 64, 3)  # turned upright


def test_command_line(capsys):
    for main, argv in (
        (train, []),
        (train, ['a.py', '--launcher', 'pigeon']),
        (train, ['a.py', '--cfg-options', 'no_value']),
        (evaluate, ['a.py']),
        (evaluate, ['a.py', 'b.pth', '--out', 'c.txt']),
    ):
        with pytest.raises(SystemExit) as stop:
            main(argv)
        assert stop.value.code == 2
        assert 'error: ' in capsys.readouterr().err


def test_status_and_stderr_of_the_process(world):
    done = subprocess.run(
        [sys.executable, TOOLS / 'train.py', *map(str, world.argv('model.backbone.conv_cfg.p=0'))],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        'train.py: error: model.backbone.conv_cfg: HetConv: p must be an integer >= 1, got p=0'
    )
    assert 'Traceback' not in done.stderr


def test_faults_of_the_program_keep_their_traceback(world, monkeypatch):
    def fault(*args):
        raise ZeroDivisionError

    monkeypatch.setattr('mmdet_hetconv.workflow.config.preflight.check_model', fault)
    with pytest.raises(ZeroDivisionError):
        train([str(word) for word in world.argv()])
