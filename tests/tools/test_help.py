"""What --help says can be done."""

import shlex
from pathlib import Path

import pytest

from .entry import TOOLS, load_main

NAMES = sorted(path.stem for path in TOOLS.glob('*.py'))


def examples(module_doc):
    """The command lines after 'examples:', without what goes on in the next line."""
    text = module_doc.partition('examples:')[2].replace('\\\n', ' ')
    return [shlex.split(line, comments=True) for line in text.strip().splitlines()]


@pytest.mark.parametrize('name', NAMES)
def test_examples_are_command_lines_that_parse(name, monkeypatch):
    lines = examples(load_main(name).__globals__['__doc__'])
    assert any(tool == f'tools/{name}.py' for _, tool, *_ in lines)
    for _, tool, *argv in lines:
        if tool.startswith('tools/'):
            monkeypatch.setattr('sys.argv', [tool, *argv])
            # A mistake would end the program.
            load_main(Path(tool).stem).__globals__['parse_args']()


def test_help_shows_the_examples_as_they_are(capsys, monkeypatch):
    monkeypatch.setattr('sys.argv', ['slim.py', '--help'])
    with pytest.raises(SystemExit):
        load_main('slim')()
    printed = capsys.readouterr().out
    assert 'examples:\n  python tools/slim.py dense.py dense.pth' in printed
