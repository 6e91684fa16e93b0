"""The command ``hetconv``."""

import subprocess
import sys
from pathlib import Path

import pytest

import hetconv
from mmdet_hetconv import config_path

TOOLS = ('convert_checkpoint', 'demo_web', 'deploy', 'export_onnx', 'train')


def test_it_lists_the_tools_without_torch():
    code = (
        'import sys, hetconv; hetconv.main([]); '
        'print(sorted({"torch", "mmengine"} & {*sys.modules}))'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert '  slim                 A trained dense detector to a faster one' in done.stdout
    assert done.stdout.splitlines()[-1] == '[]'


@pytest.mark.parametrize(
    'word, tool',
    [('train', 'train'), ('convert', 'convert_checkpoint'), ('export', 'export_onnx')]
    + [('de', None), ('fly', None)],
)
def test_a_beginning_of_one_tool_is_enough(word, tool):
    assert hetconv.find_tool(word, TOOLS) == tool


def test_configs_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ours = hetconv.find_config('faster_rcnn_het_r50')
    assert ours.endswith('.mim/configs/faster_rcnn_het_r50.py')
    assert Path(ours).samefile(config_path('faster_rcnn_het_r50'))
    stock = hetconv.find_config('faster-rcnn_r50_fpn_1x_coco.py')
    assert stock.endswith('mmdet/.mim/configs/faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py')
    # What is there, and what is none, stays as it is.
    (tmp_path / 'ssd300_het_vgg16').mkdir()
    for word in ('ssd300_het_vgg16', '--out', 'a/faster_rcnn_het_r50.py', 'nothing', '8'):
        assert hetconv.find_config(word) == word


@pytest.mark.parametrize(
    'word, hint', [('trian', 'did you mean train?'), ('xyz', 'hetconv --help lists them')]
)
def test_what_is_no_tool(word, hint):
    with pytest.raises(SystemExit) as stop:
        hetconv.main([word])
    assert hint in str(stop.value) and repr(word) in str(stop.value)
