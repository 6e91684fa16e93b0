"""The wheel is what a user without a checkout gets."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
USE = """
import mmdet_hetconv
from mmcv.cnn import build_conv_layer
from mmdet.registry import MODELS
print(mmdet_hetconv.__file__)
print(type(build_conv_layer(dict(type='HetConv', p=2), 4, 4, 3)).__name__)
print(MODELS.get('HetSSDVGG').__name__)
"""


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp('wheel')
    # A clean copy of what git tracks or would: setuptools leaves a build
    # folder where it builds, and would pick up files from an older one.
    source = out / 'source'
    source.mkdir()
    for name in ('setup.cfg', 'pyproject.toml', 'README.md', 'LICENSE'):
        (source / name).write_bytes((ROOT / name).read_bytes())
    for path in (ROOT / 'mmdet_hetconv').rglob('*'):
        if path.is_file() and '__pycache__' not in path.parts:
            target = source / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    subprocess.run(
        [
            *(sys.executable, '-m', 'pip', 'wheel', '--quiet', '--no-deps'),
            *('--no-build-isolation', '--wheel-dir', str(out), str(source)),
        ],
        check=True,
    )
    (path,) = out.glob('*.whl')
    return path


def test_wheel_holds_the_whole_package(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    for path in (ROOT / 'mmdet_hetconv').rglob('*'):
        if path.suffix in ('.py', '.cpp'):
            assert path.relative_to(ROOT).as_posix() in names
    assert not [name for name in names if name.startswith('tests/')]


def test_wheel_asks_for_nothing_it_would_overwrite(wheel):
    """A requirement could replace the user's torch, mmcv or mmdet."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith('/METADATA')]
        metadata = archive.read(name).decode()
    required = [
        line
        for line in metadata.splitlines()
        if line.startswith('Requires-Dist:') and 'extra ==' not in line
    ]
    assert required == []
    assert 'Apache-2.0' in metadata


def test_installed_wheel_registers_everything(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / 'site')
    result = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', USE],
        env={'PYTHONPATH': str(tmp_path / 'site'), 'OMP_NUM_THREADS': '1'},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    where, layer, backbone = result.stdout.split()[-3:]
    assert where.startswith(str(tmp_path))
    assert (layer, backbone) == ('HetConv2d', 'HetSSDVGG')
