"""Configs whose components do not take what they are given."""

import pytest

from mmdet_hetconv.analysis import build_detector
from mmdet_hetconv.layers import HetConv2d
from mmdet_hetconv.models.building import explained_build
from mmdet_hetconv.utils.errors import UserError
from mmdet_hetconv.workflow.config.configs import read_config
from tests.tools.entry import error_of, load_main

HET = "dict(type='HetConv', p=4)"


def config(folder, base, model):
    path = folder / 'one_line.py'
    path.write_text(
        f"_base_ = 'mmdet::{base}.py'\n"
        "custom_imports = dict(imports=['mmdet_hetconv'], allow_failed_imports=False)\n"
        f'model = dict({model})\n'
    )
    return path


@pytest.mark.parametrize('tool', ['get_flops', 'summary'])
@pytest.mark.parametrize(
    'base, part, stand_in',
    [
        ('ssd/ssd300_coco', 'backbone', 'HetSSDVGG'),
        ('faster_rcnn/faster-rcnn_r50_fpn_1x_coco', 'rpn_head', 'HetRPNHead'),
    ],
)
def test_the_component_that_takes_a_conv_cfg_is_named(
    tool, base, part, stand_in, tmp_path, monkeypatch
):
    path = config(tmp_path, base, f'{part}=dict(conv_cfg={HET})')
    monkeypatch.setattr('sys.argv', [tool])
    message = error_of(load_main(tool), path)
    assert message.startswith(f'{tool}.py: error: ')
    assert f"takes no conv_cfg: model.{part}.type='{stand_in}' does" in message


def test_the_conv_cfg_of_a_stock_ssd_head_is_kept(tmp_path):
    path = config(tmp_path, 'ssd/ssd300_coco', f'bbox_head=dict(conv_cfg={HET})')
    cfg = read_config(str(path))
    assert any(isinstance(m, HetConv2d) for m in build_detector(cfg.model).bbox_head.modules())


def test_faults_stay_faults():
    for fault in (ValueError('inconsistent'), RuntimeError('a fault of ours')):
        with pytest.raises(type(fault)) as caught, explained_build({}):
            raise fault
        assert not isinstance(caught.value, UserError)


@pytest.mark.parametrize('tool', ['get_flops', 'summary'])
def test_a_fault_in_counting_keeps_its_traceback(tool, monkeypatch):
    def fail(*args):
        raise ValueError('a fault of ours')

    main = load_main(tool)
    monkeypatch.setitem(main.__globals__, 'count_config', fail)
    with pytest.raises(ValueError, match='a fault of ours'):
        main(['configs/faster_rcnn_het_r18.py'])
