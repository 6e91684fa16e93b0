"""Every config builds, trains a step and predicts, with the right layers."""

import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from benchmarks.stock_checks import (
    het_layers,
    losses,
    predict,
    random_batch,
    shake_norms,
    without_checkpoints,
)
from mmdet_hetconv.analysis import build_detector
from mmdet_hetconv.deploy import switch_to_deploy
from mmdet_hetconv.export.onnx import RawOutputs
from mmdet_hetconv.kernels import Plan
from mmdet_hetconv.layers import GroupPointwiseConv2d

CONFIGS = Path(__file__).parents[2] / 'configs'

# Heterogeneous layers of each part, by backbone and by variant.
BACKBONE = dict(r18=16, r50=16, r101=33, vgg16=12, mobilenet=13)
# Whole detectors: (neck, heads).
FULL = dict(
    faster_rcnn=(4, 1),
    mask_rcnn=(4, 1 + 4),
    retinanet=(5, 8),
    fcos=(5, 8),
    ssd300=(4, 12),
    ssd512=(4, 14),
    ssdlite=(4, 0),
)


def expected_layers(name: str) -> int:
    detector, backbone = name.split('_het_')
    backbone, *variant = backbone.split('_')
    layers = BACKBONE[backbone] + detector.startswith(('ssd300', 'ssd512'))
    if 'stages' in variant:
        layers -= 3  # the first stage stays dense
    if {'gwc', 'dwc'} & set(variant):
        return 0
    if 'c5' in variant:
        layers += 1  # the RPN
    if 'small' in variant:
        layers += 4  # the neck
    if 'full' in variant:
        layers += sum(FULL[detector])
    return layers


def zoo() -> list[str]:
    paths = sorted(CONFIGS.glob('*.py'))
    return [path.stem for path in paths if not path.stem.startswith('demo')]


def load(name: str) -> Config:
    return Config.fromfile(CONFIGS / f'{name}.py')


def image_size(name: str) -> tuple[int, int]:
    """The smallest that a detector's neck can take."""
    if name.startswith('ssd'):
        return {'ssd300': (300, 300), 'ssd512': (512, 512)}.get(name.split('_')[0], (96, 96))
    return (64, 64)


def test_the_zoo_has_what_the_readme_promises():
    names = set(zoo())
    for backbone in BACKBONE:
        for variant in ('', '_full'):
            for data in ('', '_voc'):
                assert f'faster_rcnn_het_{backbone}{variant}{data}' in names
    for detector in ('retinanet', 'fcos', 'mask_rcnn'):
        assert {f'{detector}_het_r50', f'{detector}_het_r50_full'} <= names
    for detector in ('ssd300', 'ssd512'):
        for variant in ('', '_full', '_voc', '_full_voc'):
            assert f'{detector}_het_vgg16{variant}' in names
    assert {'ssdlite_het_mobilenet', 'ssdlite_het_mobilenet_full'} <= names
    for backbone in ('r50', 'vgg16'):
        for variant in ('gwc', 'dwc', 'scratch'):
            assert f'faster_rcnn_het_{backbone}_{variant}' in names


def with_few_regions(model_cfg):
    """The same model with fewer proposals, to be fast."""
    if 'roi_head' in model_cfg:
        model_cfg.train_cfg.rpn_proposal.max_per_img = 20
        model_cfg.train_cfg.rcnn.sampler.num = 20
        model_cfg.test_cfg.rpn.max_per_img = 20
    return model_cfg


def own_models() -> list[str]:
    """Configs whose model is no other config's, see the tests below."""
    same = re.compile('_voc$|_r.*_scratch')
    return [name for name in zoo() if not same.search(name)]


@pytest.mark.parametrize('name', own_models())
def test_layers_and_a_training_step(name):
    model_cfg = without_checkpoints(load(name).model)
    model = build_detector(with_few_regions(model_cfg))
    assert len(het_layers(model)) == expected_layers(name)

    torch.manual_seed(0)
    shake_norms(model)
    images = 2 if name.startswith('ssdlite') else 1
    batch = random_batch(image_size(name), 80, images)
    loss = losses(model, batch)
    assert loss.isfinite()
    loss.backward()
    for parameter, value in model.named_parameters():
        if value.requires_grad:
            assert value.grad is not None, parameter
            assert value.grad.isfinite().all(), parameter
    found = predict(model, batch).pred_instances
    assert found.bboxes.shape[1] == 4
    assert ((found.labels >= 0) & (found.labels < 80)).all()
    check_deployed(model, model.data_preprocessor(batch, False)['inputs'])


@torch.no_grad()
def check_deployed(model, images):
    """The inference form's raw outputs are the trained form's."""
    before = RawOutputs(model)(images)
    # Frozen: it times nothing and takes the first kernel that is usable.
    after = RawOutputs(switch_to_deploy(model, Plan(frozen=True)))(images)
    for a, b in zip(after, before, strict=True):
        assert (a - b).abs().max() <= 1e-5 * b.abs().max()


def differences(a, b, path='') -> set[str]:
    """Paths at which two configs differ."""
    if isinstance(a, dict) and isinstance(b, dict):
        return set().union(*(differences(a.get(k), b.get(k), f'{path}.{k}') for k in {*a, *b}))
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        a, b = list(a), list(b)
    return set() if a == b else {path}


@pytest.mark.parametrize('name', [n for n in zoo() if n.endswith('_voc')])
def test_voc_models_differ_in_what_voc_prescribes_only(name):
    voc, coco = load(name), load(name.removesuffix('_voc'))
    assert voc.val_evaluator.type == 'VOCMetric'
    expected = {'.roi_head.bbox_head.num_classes'}
    if name.startswith('ssd'):
        # mmdet's own: smaller boxes, the same numbers of them.
        expected = {'.bbox_head.num_classes'}
        expected |= {'.bbox_head.anchor_generator.basesize_ratio_range'}
    assert differences(voc.model, coco.model) == expected


@pytest.mark.parametrize('name', [n for n in zoo() if n.endswith('wc')])
def test_rivals_replace_the_same_layers(name):
    model = build_detector(load(name).model)
    assert not het_layers(model)
    rivals = [m for m in model.modules() if isinstance(m, GroupPointwiseConv2d)]
    backbone = name.split('_het_')[1].split('_')[0]
    assert len(rivals) == BACKBONE[backbone] + name.startswith('ssd')


@pytest.mark.parametrize('name', [n for n in zoo() if '_scratch' in n])
def test_scratch_models_differ_in_what_is_trained_only(name):
    scratch = load(name).model
    assert scratch.backbone.norm_eval is False
    assert scratch.backbone.get('frozen_stages', -1) == -1
    assert scratch.backbone.init_cfg is None
    changed = differences(scratch, load(name.replace('_scratch', '')).model)
    allowed = {'norm_eval', 'frozen_stages', 'init_cfg', 'with_bn'}
    assert changed <= {f'.backbone.{key}' for key in allowed}


@pytest.mark.parametrize('name', [n for n in zoo() if n.endswith('wc')])
def test_rivals_are_trained_from_the_first_layer(name):
    backbone = load(name).model.backbone
    assert backbone.get('frozen_stages', -1) == -1
    assert backbone.get('norm_eval', False) is False
