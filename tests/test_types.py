"""Types of the folders that mypy checks in `make lint`.

mypy itself takes too long for a test; these are the rules around it.
"""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ('kernels', 'layers', 'convert', 'deploy')
FILES = sorted(
    path for folder in FOLDERS for path in (ROOT / 'mmdet_hetconv' / folder).rglob('*.py')
)
EACH_FILE = pytest.mark.parametrize(
    'path', FILES, ids=lambda path: f'{path.parent.name}/{path.name}'
)


@EACH_FILE
def test_every_function_says_its_types(path):
    bare = []
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.FunctionDef):
            continue
        given = node.args
        arguments = [
            *given.posonlyargs,
            *given.args,
            *given.kwonlyargs,
            *filter(None, (given.vararg, given.kwarg)),
        ]
        bare += [
            f'{node.name}({argument.arg})'
            for argument in arguments
            if argument.annotation is None and argument.arg not in ('self', 'cls')
        ]
        if node.returns is None and node.name != '__init__':
            bare.append(f'{node.name}() ->')
    assert not bare


@EACH_FILE
def test_a_suppression_names_its_code_and_its_reason(path):
    lines = path.read_text().splitlines()
    for before, line in zip(['', *lines], lines):
        if 'type: ignore' in line:
            assert re.search(r'# type: ignore\[[\w, -]+\]', line), line
            assert before.lstrip().startswith('# '), line


def test_make_lint_checks_these_folders():
    settings = (ROOT / 'pyproject.toml').read_text()
    settings = settings[settings.index('[tool.mypy]') :]
    for folder in FOLDERS:
        assert f"'mmdet_hetconv.{folder}'," in settings
    makefile = (ROOT / 'Makefile').read_text()
    lint = makefile[makefile.index('lint: setup') :].split('\n\n')[0]
    assert '-m mypy' in lint
