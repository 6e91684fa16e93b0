import csv
import json
import re
import runpy
import sys
from pathlib import Path

import pytest
from torch import nn

from mmdet_hetconv.analysis import (
    complexity_table,
    count_complexity,
    layer_table,
    save_csv,
    save_json,
)
from mmdet_hetconv.layers import GroupPointwiseConv2d, HetConv2d
from mmdet_hetconv.utils.table import format_table, share_saved, with_unit

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope='module')
def results():
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        HetConv2d(8, 8, 3, padding=1, p=4),
        GroupPointwiseConv2d(8, 8, 3, padding=1, conv_groups=4),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.Conv2d(8, 6, 1),
    )
    return {'p=4': count_complexity(network, (10, 20))}


def test_format_table():
    text = format_table(('name', 'count'), [('a', 5), ('longer', 12)])
    assert text.splitlines() == ['name    count', '------  -----', 'a           5', 'longer     12']
    assert format_table(('a', 'b'), []) == 'a  b\n-  -'


def test_units():
    numbers = (0, 999, 1000, 2_856_400_000, 15_350_000)
    texts = ['0', '999', '1.000 k', '2.856 G', '15.350 M']
    assert [with_unit(n) for n in numbers] == texts
    assert share_saved(200, 50) == '75.0 %'
    assert share_saved(0, 0) == ''


def test_csv_and_json_hold_the_same_numbers(results, tmp_path):
    save_csv(results, tmp_path / 'a.csv')
    save_json(results, tmp_path / 'a.json')
    with open(tmp_path / 'a.csv') as file:
        from_csv = list(csv.DictReader(file))
    from_json = json.loads((tmp_path / 'a.json').read_text())
    assert [{k: str(v) for k, v in row.items()} for row in from_json] == (from_csv)
    total = from_json[-1]
    assert total['component'] == 'total' and total['het_layers'] == 1
    pixels = 10 * 20
    het, rival = 8 * (2 * 9 + 6), 8 * 2 * 9 + 64
    dense = 27 * 8 + 3 * 72 * 8 + 48
    assert total['dense_macs'] == pixels * dense
    assert total['macs'] == pixels * (27 * 8 + het + rival + 72 * 8 + 48)
    assert total['executed_macs'] == total['macs'] + pixels * 8 * 2
    assert total['dense_parameters'] == dense + 8 * 3 + 6
    assert total['parameters'] == total['macs'] // pixels + 8 * 3 + 6


def test_table(results):
    text = complexity_table(results)
    assert '10 x 20 pixels (height x width)' in text
    total = next(t for t in text.splitlines() if 'total' in t)
    assert re.split('  +', total)[:3] == ['p=4', 'total', '1']


def test_layers_say_why_they_are_dense(results):
    lines = layer_table(results['p=4']).splitlines()
    assert lines[2].endswith('in_channels=3 is not a multiple of p=4')
    assert 'HetConv p=4' in lines[3]
    assert 'group + point-wise, groups=4' in lines[4]
    assert lines[5].endswith('given no HetConv, or builds it plain')
    assert lines[6].endswith('the kernel is 1 x 1')
    total = results['p=4'].total
    costs = [with_unit(total(what)) for what in ('dense_macs', 'macs', 'parameters')]
    assert re.split('  +', lines[7].strip()) == ['total', *costs]
    assert lines[-1] == '1 of 5 layers are heterogeneous.'


@pytest.fixture
def run_tool(monkeypatch, capsys):
    """Run a tool in this process; returns what it printed."""

    def run(tool: str, *args: str) -> str:
        monkeypatch.chdir(ROOT)
        monkeypatch.setattr(sys, 'argv', [tool, *args])
        runpy.run_path(tool, run_name='__main__')
        return capsys.readouterr().out

    return run


def test_get_flops_tool(tmp_path, run_tool):
    text = run_tool(
        'tools/get_flops.py',
        'configs/faster_rcnn_het_r18.py',
        *('--shape', '64', '96', '--p', '1', '8'),
        *('--csv', str(tmp_path / 'a.csv'), '--json', str(tmp_path / 'a.json')),
    )
    rows = json.loads((tmp_path / 'a.json').read_text())
    assert [row['model'] for row in rows] == ['p=1'] * 5 + ['p=8'] * 5
    assert (rows[0]['height'], rows[0]['width']) == (64, 96)
    assert [row['het_layers'] for row in rows[::5]] == [0, 16]
    assert '64 x 96 pixels' in text
    assert (tmp_path / 'a.csv').read_text().count('\n') == 11


def test_summary_tool(run_tool):
    text = run_tool('tools/summary.py', 'configs/faster_rcnn_het_r18.py')
    # backbone 20, neck 8, RPN 3, RoI head 4
    assert '16 of 35 layers are heterogeneous.' in text
    assert re.search(r'^norms and others +\S+ k', text, re.MULTILINE)
    assert 'its component was given no HetConv' in text


@pytest.mark.parametrize(
    'args,message',
    [
        (['configs/nothing.py'], 'get_flops.py: error: .*nothing.py'),
        (
            ['configs/faster_rcnn_het_r50_dwc.py', '--p', '2'],
            'get_flops.py: error: p=2: there is no HetConv in the config',
        ),
        (
            ['configs/faster_rcnn_het_r18.py', '--p', '4', '7'],
            'get_flops.py: error: nothing was converted: p=7 fits no layer',
        ),
        (
            ['configs/faster_rcnn_het_r18.py', '--p', '0'],
            'get_flops.py: error: p must be an integer >= 1, got p=0',
        ),
    ],
)
def test_bad_input_of_the_tool(args, message, run_tool):
    # SystemExit with a text is printed to stderr, status 1
    with pytest.raises(SystemExit, match=message):
        run_tool('tools/get_flops.py', *args)
