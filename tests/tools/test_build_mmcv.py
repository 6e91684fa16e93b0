"""The build of mmcv: one translation unit, a wheel only when complete."""

import runpy
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / 'tools' / 'setup' / 'build_mmcv.py'


@pytest.fixture(scope='module')
def build_mmcv():
    return runpy.run_path(str(SCRIPT))


@pytest.fixture
def sources(tmp_path, build_mmcv):
    """Sources laid out like mmcv's, of functions instead of ops."""
    folder = tmp_path / 'mmcv-0' / build_mmcv['CSRC']
    (folder / 'cpu').mkdir(parents=True)
    for name in ('roi', 'nms'):
        (folder / f'{name}.cpp').write_text(
            f'#include "common.h"\nint {name}() {{ return ONE; }}\n'
        )
        (folder / 'cpu' / f'{name}.cpp').write_text('static int helper() { return 1; }\n')
    (folder / 'common.h').write_text('#pragma once\n#define ONE 1\n')
    return tmp_path / 'mmcv-0'


def test_merge_keeps_every_source_once(build_mmcv, sources):
    assert build_mmcv['merge_translation_units'](sources) == 2
    folder = sources / build_mmcv['CSRC']
    assert [f.name for f in folder.glob('*.cpp')] == ['all_ops.cpp']
    assert (folder / 'all_ops.cpp').read_text().splitlines() == [
        '#include "parts/nms.cpp"',
        '#include "parts/roi.cpp"',
    ]
    assert sorted(f.name for f in (folder / 'cpu').iterdir()) == ['nms.cpp', 'roi.cpp']


@pytest.mark.skipif(shutil.which('c++') is None, reason='no compiler')
def test_merged_unit_compiles(build_mmcv, sources):
    build_mmcv['merge_translation_units'](sources)
    folder = sources / build_mmcv['CSRC']
    # mmcv's own build has this folder's headers on its include path too.
    subprocess.run(
        ['c++', '-c', f'-I{folder}', 'all_ops.cpp', '-o', 'all_ops.o'], cwd=folder, check=True
    )
    assert (folder / 'all_ops.o').stat().st_size > 0


def test_build_folder_starts_empty_after_a_kill(build_mmcv, tmp_path):
    left = tmp_path / 'wheels' / 'unfinished' / 'half.o'
    left.parent.mkdir(parents=True)
    left.write_text('half an object file')
    with build_mmcv['build_folder'](tmp_path / 'wheels') as folder:
        assert list(folder.iterdir()) == []
    assert not folder.exists()


PROJECT = """
import setuptools
setuptools.setup(name='mmcv', version='0')
"""


def test_failed_build_shows_the_reason_and_no_wheel(build_mmcv, sources, tmp_path, capfd):
    (sources / 'setup.py').write_text("raise OSError('no such header')")
    with pytest.raises(SystemExit, match='building mmcv failed'):
        build_mmcv['compile_wheel'](sources, tmp_path / 'out', tmp_path / 'build.log')
    assert 'no such header' in capfd.readouterr().err
    assert 'Traceback' in (tmp_path / 'build.log').read_text()
    assert list(tmp_path.glob('out/*.whl')) == []


def test_build_gives_a_whole_wheel(build_mmcv, sources, tmp_path):
    (sources / 'setup.py').write_text(PROJECT)
    build_mmcv['compile_wheel'](sources, tmp_path / 'out', tmp_path / 'build.log')
    (wheel,) = (tmp_path / 'out').glob('mmcv-*.whl')
    assert zipfile.ZipFile(wheel).testzip() is None
