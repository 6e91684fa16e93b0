"""The tools' main functions, which are not part of a package."""

import importlib.util
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / 'tools'


def load_main(name):
    """main() of tools/NAME.py."""
    spec = importlib.util.spec_from_file_location(f'tools_{name}', TOOLS / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


train = load_main('train')
evaluate = load_main('test')


def error_of(main, *argv):
    """The sentence with which a tool ends."""
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in argv])
    # Python prints a string on stderr and makes the exit status 1.
    message = stop.value.code
    assert isinstance(message, str), f'exit status {message}'
    assert '\n' not in message
    return message
