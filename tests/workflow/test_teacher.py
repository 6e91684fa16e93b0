"""Training with a dense detector as teacher, through tools/train.py."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope

from tests import tiny
from tests.tools.entry import error_of, train

CONV_CFG = "        conv_cfg=dict(type='HetConv', p=4),\n"
CLASSES = '\nmodel["roi_head"]["bbox_head"]["num_classes"] = 2\n'


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A data set, a dense detector with its checkpoint, a config that uses it."""
    from mmdet.registry import MODELS

    path = tmp_path_factory.mktemp('teacher')
    tiny.write_coco(path / 'coco')
    (path / 'dense.py').write_text(tiny.CONFIG.replace(CONV_CFG, '') + CLASSES)
    init_default_scope('mmdet')
    torch.manual_seed(0)
    model = MODELS.build(Config.fromfile(path / 'dense.py').model)
    torch.save(dict(state_dict=model.state_dict()), path / 'dense.pth')
    write(path / 'het.py', path / 'dense.py', path / 'dense.pth')
    return path


def write(path, config, checkpoint, more=''):
    hook = f"dict(type='TeacherHook', config='{config}', checkpoint='{checkpoint}'{more})"
    tiny.write_config(path, f'\ncustom_hooks = [{hook}]\n')


def argv(folder, config='het.py', *more):
    words = [folder / config, '--data-root', folder / 'coco', '--work-dir', folder / 'work']
    return [*map(str, words), *more, '--cfg-options', *tiny.SCALES]


def test_it_trains_and_resumes_and_leaves_no_trace(folder):
    train(argv(folder) + ['train_cfg.max_epochs=1'])
    train(argv(folder, 'het.py', '--resume'))
    content = torch.load(folder / 'work' / 'epoch_2.pth', weights_only=False)
    scalars = content['message_hub']['log_scalars']
    losses = scalars['train/loss_teacher'].data[0]
    assert len(losses) == 6  # two images a step, two epochs
    assert losses[-1] < losses[0]
    tiny.write_config(folder / 'plain.py', CLASSES)
    init_default_scope('mmdet')
    from mmdet.registry import MODELS

    model = MODELS.build(Config.fromfile(folder / 'plain.py').model)
    assert content['state_dict'].keys() == model.state_dict().keys()


@pytest.mark.parametrize('norm_eval', [True, False])
def test_batch_norms_keep_their_statistics_if_they_shall(folder, norm_eval):
    write(folder / 'kept.py', folder / 'dense.py', folder / 'dense.pth', f', norm_eval={norm_eval}')
    words = argv(folder, 'kept.py') + ['train_cfg.max_epochs=1']
    words[words.index('--work-dir') + 1] = str(folder / f'kept_{norm_eval}')
    train(words)
    content = torch.load(folder / f'kept_{norm_eval}' / 'epoch_1.pth', weights_only=False)
    means = {key: mean for key, mean in content['state_dict'].items() if 'running_mean' in key}
    assert means
    for key, mean in means.items():
        assert mean.any() != norm_eval, key


def test_another_detector_is_no_teacher(folder):
    wide = tiny.CONFIG.replace(CONV_CFG, '').replace('base_channels=16', 'base_channels=32')
    wide = wide.replace('[16, 32, 64, 128]', '[32, 64, 128, 256]') + CLASSES
    (folder / 'wide.py').write_text(wide)
    from mmdet.registry import MODELS

    init_default_scope('mmdet')
    model = MODELS.build(Config.fromfile(folder / 'wide.py').model)
    torch.save(dict(state_dict=model.state_dict()), folder / 'wide.pth')
    write(folder / 'taught.py', folder / 'wide.py', folder / 'wide.pth')
    message = error_of(train, *argv(folder, 'taught.py'))
    assert 'wide.py is no teacher of this detector: backbone.layer1.0.conv1' in message
    write(folder / 'taught.py', folder / 'dense.py', folder / 'wide.pth')
    assert 'wide.pth' in error_of(train, *argv(folder, 'taught.py'))
    write(folder / 'taught.py', folder / 'dense.py', folder / 'absent.pth')
    assert 'absent.pth' in error_of(train, *argv(folder, 'taught.py'))


FCOS = """
_base_ = 'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py'
model = dict(
    backbone=dict(depth=18, base_channels=16, norm_eval=True, init_cfg=None, style='pytorch'),
    neck=dict(in_channels=[16, 32, 64, 128], out_channels=16),
    bbox_head=dict(
        num_classes=2, in_channels=16, feat_channels=16, stacked_convs=1, norm_on_bbox=True,
        norm_cfg=dict(type='GN', num_groups=4),
    ),
)
"""


def test_a_head_with_other_boxes_while_it_is_trained_is_compared_in_these(tmp_path):
    """FCOS with norm_on_bbox multiplies its boxes by the stride in eval mode."""
    from mmdet.registry import MODELS
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    from mmdet_hetconv.convert import convert_model, make_dense
    from mmdet_hetconv.workflow.teacher import TeacherHook

    init_default_scope('mmdet')
    (tmp_path / 'fcos.py').write_text(FCOS)
    torch.manual_seed(0)
    student = MODELS.build(Config.fromfile(tmp_path / 'fcos.py').model)
    convert_model(student.backbone, p=4, exclude='conv1')
    torch.save(dict(state_dict=make_dense(student).state_dict()), tmp_path / 'fcos.pth')
    hook = TeacherHook(str(tmp_path / 'fcos.py'), str(tmp_path / 'fcos.pth'), norm_eval=True)
    runner = SimpleNamespace(model=student.train())
    hook.before_train(runner)
    hook.before_train_iter(runner, 0)
    sample = DetDataSample(metainfo=dict(img_shape=(64, 64), pad_shape=(64, 64), scale_factor=1))
    sample.gt_instances = InstanceData(
        bboxes=torch.tensor([[8.0, 8.0, 40.0, 40.0]]), labels=torch.tensor([1])
    )
    losses = student.loss(torch.rand(1, 3, 64, 64), [sample])
    assert losses['loss_bbox'] > 0
    assert losses['loss_teacher'] < 1e-4
