"""Imports between the folders of the package go one way."""

import ast
from pathlib import Path

import pytest

import mmdet_hetconv

PACKAGE = Path(mmdet_hetconv.__file__).parent
# Which folders each folder imports; the core is all but the last two.
ALLOWED = {
    'utils': (),
    'layers': ('utils',),
    'kernels': ('utils', 'layers'),
    'trace': ('utils', 'layers', 'kernels'),
    'models': ('utils', 'layers', 'trace'),
    'convert': ('utils', 'layers', 'kernels', 'trace', 'models'),
    'deploy': ('utils', 'layers', 'kernels', 'trace', 'models'),
    'export': ('utils', 'kernels', 'models', 'deploy'),
    'analysis': ('utils', 'layers', 'kernels', 'trace', 'models', 'convert', 'deploy', 'export'),
    'workflow': (
        *('utils', 'layers', 'kernels', 'trace', 'models', 'convert', 'deploy', 'export'),
        'analysis',
    ),
    'comfort': (
        *('utils', 'layers', 'kernels', 'trace', 'models', 'convert', 'deploy', 'export'),
        *('analysis', 'workflow'),
    ),
}
FILES = sorted(PACKAGE.glob('*/**/*.py'))


def imported(path):
    """Absolute names of the modules that a file imports anywhere."""
    package = ('mmdet_hetconv', *path.relative_to(PACKAGE).parent.parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1]
            base = '.'.join(above) if node.level else ''
            module = '.'.join(filter(None, (base, node.module)))
            yield module
            yield from (f'{module}.{name.name}' for name in node.names)


@pytest.mark.parametrize('path', FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_one_way(path):
    folder = path.relative_to(PACKAGE).parts[0]
    names = set(imported(path))
    used = {name.split('.')[1] for name in names if name.startswith('mmdet_hetconv.')}
    assert (used & set(ALLOWED)) - {folder} <= set(ALLOWED[folder])
    roots = {name.split('.')[0] for name in names}
    if folder in ('utils', 'layers', 'kernels'):
        assert not roots & {'mmdet', 'mmcv'}
    assert not any(name.startswith('mmcv.ops') for name in names)


def test_every_folder_has_its_place():
    folders = {path.relative_to(PACKAGE).parts[0] for path in FILES}
    assert folders == set(ALLOWED)


@pytest.mark.parametrize('folder', sorted({path.parent for path in FILES}), ids=lambda p: p.name)
def test_every_folder_says_what_lives_there(folder):
    assert ast.get_docstring(ast.parse((folder / '__init__.py').read_text()))
