"""The lock list: complete, fitting setup.cfg, one version per Python."""

import configparser
import re
import runpy
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PYTHONS = ('3.10', '3.11', '3.12')
# Not in the list: built or installed by setup.sh, or replaced on purpose.
OF_GPU_BUILDS = ('cuda', 'nvidia', 'triton')
ELSEWHERE = {'torch', 'mmcv', 'opencv-python'}


def requirements(text):
    for line in text.splitlines():
        line = line.split('#')[0].strip()
        if line:
            yield Requirement(line)


def locked(python):
    """Name -> version for one version of Python."""
    found = {}
    text = (ROOT / 'requirements' / 'lock.txt').read_text()
    for item in requirements(text):
        if item.marker and not item.marker.evaluate({'python_version': python}):
            continue
        (pin,) = item.specifier
        assert pin.operator == '==' and item.name not in found
        found[canonicalize_name(item.name)] = pin.version
    return found


def pinned_by_setup():
    """torch and mmcv, which setup.sh installs by itself."""
    text = (ROOT / 'tools' / 'setup' / 'setup.sh').read_text()
    return dict(re.findall(r'^(torch|mmcv)=([\d.]+)$', text, re.MULTILINE))


@pytest.mark.parametrize('python', PYTHONS)
def test_lock_satisfies_setup_cfg(python):
    config = configparser.ConfigParser()
    config.read(ROOT / 'setup.cfg')
    versions = {**locked(python), **pinned_by_setup()}
    wanted = list(requirements(config['options.extras_require']['mmdet']))
    assert {'torch', 'mmcv', 'mmdet'} <= {item.name for item in wanted}
    for item in wanted:
        assert item.specifier.contains(versions[item.name]), item


@pytest.mark.parametrize('python', PYTHONS)
def test_lock_satisfies_direct_requirements(python):
    versions = locked(python)
    text = (ROOT / 'requirements' / 'direct.txt').read_text()
    for item in requirements(text):
        if item.marker is None or item.marker.evaluate({'python_version': python}):
            version = versions[canonicalize_name(item.name)]
            assert item.specifier.contains(version), item


@pytest.mark.parametrize('python', PYTHONS)
def test_lock_is_complete(python):
    """What a listed package asks for is listed too, in a fitting version."""
    versions = locked(python)
    for name in [*versions, 'torch']:
        try:
            wanted = requires(name) or []
        except PackageNotFoundError:  # of another Python
            continue
        if version(name) != versions.get(name, version(name)):
            continue  # what is installed here is another Python's
        for item in map(Requirement, wanted):
            other = canonicalize_name(item.name)
            environment = {
                'python_version': python,
                'python_full_version': f'{python}.0',
                'extra': '',
            }
            if item.marker and not item.marker.evaluate(environment):
                continue
            if other in ELSEWHERE or other.startswith(OF_GPU_BUILDS):
                continue
            assert other in versions, f'{name} asks for {item}'


def test_markers_split_by_version():
    merge = runpy.run_path(str(ROOT / 'tools' / 'setup' / 'lock.py'))['merge']
    lines = merge(
        {
            '3.10': {'numpy': '2.2', 'six': '1.17', 'tomli': '2.5'},
            '3.11': {'numpy': '2.4', 'six': '1.17', 'opencv-python': '5'},
            '3.12': {'numpy': '2.4', 'six': '1.17'},
        }
    )
    assert lines == [
        "numpy==2.2 ; python_version == '3.10'",
        "numpy==2.4 ; python_version == '3.11' or python_version == '3.12'",
        'six==1.17',
        "tomli==2.5 ; python_version == '3.10'",
    ]
