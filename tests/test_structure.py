"""Imports between the folders of the package go one way."""

import ast
from pathlib import Path

import pytest

import mmdet_hetconv

PACKAGE = Path(mmdet_hetconv.__file__).parent
# A folder may import those before it.
ORDER = (
    *('utils', 'layers', 'kernels', 'trace', 'deploy', 'models', 'convert'),
    *('analysis', 'datasets', 'engine', 'apps'),
)
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
    later = ORDER[ORDER.index(folder) + 1 :]
    names = set(imported(path))
    wrong = [
        name
        for name in names
        if name.split('.')[0] == 'mmdet_hetconv'
        and len(name.split('.')) > 1
        and name.split('.')[1] in later
    ]
    assert not wrong
    roots = {name.split('.')[0] for name in names}
    if folder in ('utils', 'layers', 'kernels'):
        assert not roots & {'mmdet', 'mmcv'}
    assert not any(name.startswith('mmcv.ops') for name in names)


def test_every_folder_has_its_place():
    folders = {path.relative_to(PACKAGE).parts[0] for path in FILES}
    assert folders == set(ORDER)
