"""What --help says can be done."""

import shlex

import pytest

from .entry import TOOLS, load_main

NAMES = sorted(path.stem for path in TOOLS.glob('*.py'))


def examples(module_doc):
    """The command lines after 'examples:', without what goes on in the next line."""
    text = module_doc.partition('examples:')[2].replace('\\\n', ' ')
    return [shlex.split(line, comments=True) for line in text.strip().splitlines()]


@pytest.mark.parametrize('name', NAMES)
def test_examples_are_command_lines_that_parse(name, monkeypatch):
    main = load_main(name)
    doc, parse = main.__globals__['__doc__'], main.__globals__['parse_args']
    own = [words for words in examples(doc) if words[1] == f'tools/{name}.py']
    assert own
    for _, tool, *argv in examples(doc):
        parser = parse if tool == f'tools/{name}.py' else None
        if parser is None and tool.startswith('tools/'):
            parser = load_main(tool[6:-3]).__globals__['parse_args']
        if parser is not None:
            monkeypatch.setattr('sys.argv', [tool, *argv])
            parser()  # of the command line; a mistake would end the program


def test_help_shows_the_examples_as_they_are(capsys, monkeypatch):
    monkeypatch.setattr('sys.argv', ['slim.py', '--help'])
    with pytest.raises(SystemExit):
        load_main('slim')()
    printed = capsys.readouterr().out
    assert 'examples:\n  python tools/slim.py dense.py dense.pth' in printed
