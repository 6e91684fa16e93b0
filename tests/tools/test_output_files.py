"""What measures for long looks first whether it can write what it finds."""

import pytest

from mmdet_hetconv.analysis import latency
from tests import tiny

from .entry import error_of, load_main


def test_benchmark_looks_before_it_measures(tmp_path, monkeypatch):
    config = tiny.write_config(tmp_path / 'tiny.py')
    (tmp_path / 'file').touch()

    def measured(*args, **kwargs):
        pytest.fail('measured before it was known where to write')

    monkeypatch.setattr(latency, 'benchmark_config', measured)
    main = load_main('benchmark')
    out = tmp_path / 'file' / 'out'
    message = error_of(main, config, '--out', out)
    assert f'--out {tmp_path / "file"} cannot be written to' in message
    (tmp_path / 'out.png').mkdir()
    message = error_of(main, config, '--out', tmp_path / 'out')
    assert 'out.png is a folder, name a file' in message


def test_benchmark_prints_before_it_writes(tmp_path, monkeypatch, capsys):
    timing = latency.Timing('tiny', 'dense', '8x8', *(False, 1), *[1.0] * 7)
    monkeypatch.setattr(latency, 'benchmark_config', lambda *a, **k: [timing])

    def full(*args):
        raise OSError('the disk is full')

    monkeypatch.setattr(latency, 'write_csv', full)
    config = tiny.write_config(tmp_path / 'tiny.py')
    with pytest.raises(OSError, match='full'):
        load_main('benchmark')([str(config), '--out', str(tmp_path / 'out')])
    assert 'dense' in capsys.readouterr().out


@pytest.mark.parametrize('option', ['--csv', '--json'])
def test_get_flops_looks_first(tmp_path, monkeypatch, option, capsys):
    config = tiny.write_config(tmp_path / 'tiny.py')
    argv = ['get_flops', str(config), option, str(tmp_path)]
    monkeypatch.setattr('sys.argv', argv)
    with pytest.raises(SystemExit, match=f'{option} .* is a folder'):
        load_main('get_flops')()
    assert not capsys.readouterr().out


def test_benchmark_says_what_the_machine_lacks(tmp_path, monkeypatch):
    config = tiny.write_config(tmp_path / 'tiny.py')
    benchmark = load_main('benchmark')
    monkeypatch.setattr('mmdet_hetconv.deploy.precision._computes_bf16', lambda device: False)
    words = [config, '--out', tmp_path / 'out']
    assert 'multiplies no bfloat16' in error_of(benchmark, *words, '--precision', 'bf16')
    monkeypatch.setattr('mmdet_hetconv.export.runtimes.find_spec', lambda name: None)
    assert 'pip install onnx onnxscript openvino' in error_of(
        benchmark, *words, '--backend', 'openvino'
    )
