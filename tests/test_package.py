"""The source package, and the wheel made from it as `python -m build` does.

A wheel is what a user without a checkout gets.
"""

import re
import runpy
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

from mmdet_hetconv import config_path

ROOT = Path(__file__).resolve().parents[1]
PACKED = (
    *('setup.cfg', 'pyproject.toml', 'MANIFEST.in', 'README.md', 'LICENSE'),
    *('CHANGELOG.md', 'CITATION.cff', 'Makefile', 'model-index.yml'),
    *('mmdet_hetconv', 'hetconv.py', 'configs', 'tools', 'requirements'),
)
# What a user without a checkout writes, and mmdet's own tools read: nothing
# has imported the plugin before.
INHERIT = """
_base_ = __import__('mmdet_hetconv').config_path('faster_rcnn_het_r50')
model = dict(backbone=dict(depth=101))
"""
USE = """
from mmengine.config import Config
cfg = Config.fromfile('own.py')
print(cfg.model.backbone.depth, cfg.model.backbone.conv_cfg.type)

import mmdet_hetconv
from mmcv.cnn import build_conv_layer
from mmdet.registry import MODELS
print(type(build_conv_layer(dict(type='HetConv', p=2), 4, 4, 3)).__name__)
print(MODELS.get('HetSSDVGG').__name__)
print(mmdet_hetconv.__file__)
"""
SDIST = 'import sys; from setuptools import build_meta as backend; \
backend.build_sdist(sys.argv[1])'


@pytest.fixture(scope='module')
def sdist(tmp_path_factory):
    """The source package of a clean copy.

    setuptools leaves a build folder where it builds, and would pick up files
    from an older one.
    """
    folder = tmp_path_factory.mktemp('sdist')
    for name in PACKED:
        if (ROOT / name).is_dir():
            shutil.copytree(
                ROOT / name,
                folder / 'source' / name,
                symlinks=True,
                ignore=shutil.ignore_patterns('__pycache__'),
            )
        else:
            (folder / 'source').mkdir(exist_ok=True)
            shutil.copy(ROOT / name, folder / 'source')
    subprocess.run(
        [sys.executable, '-c', SDIST, str(folder)],
        cwd=folder / 'source',
        check=True,
        capture_output=True,
    )
    (path,) = folder.glob('*.tar.gz')
    return path


@pytest.fixture(scope='module')
def wheel(sdist):
    folder = sdist.parent
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / 'unpacked', filter='data')
    (source,) = (folder / 'unpacked').iterdir()
    subprocess.run(
        [
            *(sys.executable, '-m', 'pip', 'wheel', '--quiet', '--no-deps'),
            *('--no-build-isolation', '--wheel-dir', str(folder)),
            str(source),
        ],
        check=True,
    )
    (path,) = folder.glob('*.whl')
    return path


@pytest.fixture(scope='module')
def site(wheel):
    """A folder with the unpacked wheel, as in site-packages."""
    folder = wheel.parent / 'site'
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


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


def test_installed_wheel_is_found_by_configs(site, tmp_path):
    (tmp_path / 'own.py').write_text(INHERIT)
    result = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', USE],
        env={'PYTHONPATH': str(site), 'OMP_NUM_THREADS': '1'},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    *words, where = result.stdout.split()
    assert words == ['101', 'HetConv', 'HetConv2d', 'HetSSDVGG']
    assert where.startswith(str(site))


def test_tools_run_from_an_installed_wheel(site, tmp_path):
    def run(*words):
        return subprocess.run(
            [sys.executable, '-W', 'ignore', '-m', 'mmdet_hetconv', *words],
            env={'PYTHONPATH': str(site), 'OMP_NUM_THREADS': '1'},
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )

    usage = run()
    for path in (ROOT / 'tools').glob('*.py'):
        assert f'  {path.stem} ' in usage.stdout
    flops = run('get_flops', 'ssd300_het_vgg16', '--p', '1', '4')
    assert flops.returncode == 0 and 'p=4' in flops.stdout
    wrong = run('trian')
    assert wrong.returncode == 1
    assert wrong.stderr.rstrip().endswith("hetconv: error: 'trian' is no tool, did you mean train?")


def test_wheel_brings_configs_and_tools_as_copies(site):
    """What mim and mmengine look for in an OpenMMLab package."""
    mim = site / 'mmdet_hetconv' / '.mim'
    for folder in ('configs', 'configs/_base_'):
        names = sorted(path.name for path in (ROOT / folder).glob('*.*'))
        found = sorted(path.name for path in (mim / folder).glob('*.*'))
        assert found == names
    for path in (ROOT / 'tools').glob('*.*'):
        assert (mim / 'tools' / path.name).read_bytes() == path.read_bytes()
    assert not [path for path in mim.rglob('*') if path.is_symlink()]
    (metafile,) = yaml.safe_load((mim / 'model-index.yml').read_text())['Import']
    for model in yaml.safe_load((mim / metafile).read_text())['Models']:
        assert (mim / model['Config']).is_file()


def test_config_path_of_a_checkout():
    path = ROOT / 'configs' / 'ssd300_het_vgg16.py'
    assert config_path('ssd300_het_vgg16') == str(path)
    assert config_path('ssd300_het_vgg16.py') == str(path)
    message = "no config 'ssd300_het_vgg15' in .*close to it: ssd300_het_vgg16"
    with pytest.raises(ValueError, match=message):
        config_path('ssd300_het_vgg15')


def test_sdist_is_complete(sdist):
    with tarfile.open(sdist) as archive:
        names = {name.partition('/')[2] for name in archive.getnames()}
    for name in PACKED:
        assert name in names
    assert 'configs/_base_/vgg16_fpn.py' in names
    assert 'mmdet_hetconv/.mim/configs/_base_/vgg16_fpn.py' in names


def test_version_stands_in_one_place(wheel):
    version = runpy.run_path(str(ROOT / 'mmdet_hetconv' / 'version.py'))
    assert wheel.name.split('-')[1] == version['__version__']
    assert f'\n## {version["__version__"]} ' in (ROOT / 'CHANGELOG.md').read_text(encoding='utf-8')
    for name in ('setup.cfg', 'pyproject.toml', 'CITATION.cff', 'Makefile'):
        text = (ROOT / name).read_text(encoding='utf-8')
        assert not re.search(r'^version\s*[:=]\s*\W?\d', text, re.M), name
