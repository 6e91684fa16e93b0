"""Weights of the stock detector in the heterogeneous one of the zoo."""

from pathlib import Path

import mmdet
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import load_checkpoint

from benchmarks.stock_checks import het_layers, random_batch, shake_norms, without_checkpoints
from mmdet_hetconv.analysis import build_detector
from mmdet_hetconv.models import set_p

OURS = Path(__file__).parents[2] / 'configs'
STOCK = Path(mmdet.__file__).parent / '.mim' / 'configs'
# ours: the stock config, heterogeneous layers, image size
SAME = {
    'faster_rcnn_het_r50_full': ('faster_rcnn/faster-rcnn_r50_fpn_1x', 21, 64),
    'mask_rcnn_het_r50_full': ('mask_rcnn/mask-rcnn_r50_fpn_1x', 25, 64),
    'retinanet_het_r50_full': ('retinanet/retinanet_r50_fpn_1x', 29, 64),
    'fcos_het_r50_full': ('fcos/fcos_r50-caffe_fpn_gn-head_1x', 29, 64),
    'ssd300_het_vgg16_full': ('ssd/ssd300', 29, 300),
}


def model_cfg(path: Path):
    return without_checkpoints(Config.fromfile(path).model)


@torch.no_grad()
def network_outputs(model, size: int) -> list[torch.Tensor]:
    """What the heads give before any box is decoded."""
    model.eval()
    torch.manual_seed(1)
    batch = model.data_preprocessor(random_batch((size, size), images=1))
    if hasattr(model, 'roi_head'):
        maps = model.extract_feat(batch['inputs'])
        outputs = model.rpn_head(maps)
    else:
        outputs = model(batch['inputs'], mode='tensor')
    return [tensor for levels in outputs for tensor in levels]


@pytest.mark.parametrize('name', SAME)
def test_a_dense_checkpoint_loads_and_p1_is_the_dense_detector(name, tmp_path):
    stock, layers, size = SAME[name]
    torch.manual_seed(0)
    dense = build_detector(model_cfg(STOCK / f'{stock}_coco.py'))
    shake_norms(dense)
    checkpoint = str(tmp_path / 'dense.pth')
    torch.save(dict(state_dict=dense.state_dict()), checkpoint)

    ours = model_cfg(OURS / f'{name}.py')
    het = build_detector(ours)
    assert len(het_layers(het)) == layers
    load_checkpoint(het, checkpoint, strict=True)  # no key is dropped
    dense_state, het_state = dense.state_dict(), het.state_dict()
    for key in dense_state.keys() & het_state.keys():
        assert torch.equal(dense_state[key], het_state[key]), key
    for layer in het_layers(het):
        projected = het.get_submodule(layer).project(
            dense_state[f'{layer}.weight'], dense_state.get(f'{layer}.bias')
        )
        for key, value in projected.items():
            assert torch.equal(het_state[f'{layer}.{key}'], value), key

    same = build_detector(set_p(ours, 1))
    assert not het_layers(same)
    load_checkpoint(same, checkpoint, strict=True)
    expected = network_outputs(dense, size)
    for a, b in zip(network_outputs(same, size), expected, strict=True):
        torch.testing.assert_close(a, b)
