"""A machine that lacks something is told so in one sentence."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SETUP = Path(__file__).parents[2] / 'tools' / 'setup'
CHECK = SETUP / 'check.py'


def script(path, text):
    path.write_text(text)
    path.chmod(0o755)


def run(*command, **env):
    return subprocess.run(
        list(map(str, command)),
        env={**os.environ, 'CXX': 'c++', **env},
        capture_output=True,
        text=True,
    )


def one_sentence(result):
    """The single line of a refusal."""
    assert result.returncode != 0
    assert result.stdout == ''
    (line,) = result.stderr.splitlines()
    assert line.startswith('error: ')
    return line


def test_room_enough_is_no_word(tmp_path, fake_compiler):
    fake_compiler('exit 0')
    result = run(sys.executable, CHECK, '--room', tmp_path, 0.001, PATH=tmp_path)
    assert (result.returncode, result.stdout, result.stderr) == (0, '', '')


@pytest.fixture
def fake_compiler(tmp_path):
    def make(body):
        script(tmp_path / 'c++', f'#!/bin/sh\n{body}\n')

    return make


def test_no_compiler(tmp_path):
    line = one_sentence(run(sys.executable, CHECK, PATH=tmp_path))
    assert '`c++` was not found' in line


def test_compiler_of_python_missing(tmp_path):
    line = one_sentence(run(sys.executable, CHECK, PATH=tmp_path, CXX=''))
    assert 'was not found: install g++' in line


def test_named_compiler_missing(tmp_path):
    result = run(sys.executable, CHECK, CXX='no-such-compiler -m64')
    assert '`no-such-compiler -m64` was not found' in one_sentence(result)


def test_old_compiler(tmp_path, fake_compiler):
    fake_compiler('case "$*" in *c++20*) exit 1;; esac')
    line = one_sentence(run(sys.executable, CHECK, PATH=tmp_path))
    assert 'does not compile C++20' in line


def test_no_python_headers(tmp_path, fake_compiler):
    fake_compiler('case "$*" in *-I*) exit 1;; esac')
    line = one_sentence(run(sys.executable, CHECK, PATH=tmp_path))
    assert 'Python.h is missing' in line


def test_no_room(tmp_path, fake_compiler):
    fake_compiler('exit 0')
    place = tmp_path / 'not' / 'there' / 'yet'
    result = run(sys.executable, CHECK, '--room', place, 1e9, PATH=tmp_path)
    line = one_sentence(result)
    assert '1e+09 GB' in line and str(place) in line


def fake_python(folder, name, version):
    """An interpreter that answers the version test as ``version`` would."""
    script(
        folder / name,
        f'#!{sys.executable}\n'
        'import sys\n'
        f'sys.version_info = {(*version, 0)}\n'
        f'sys.executable = {str(folder / name)!r}\n'
        'exec(sys.argv[2])\n',
    )


def find(folder, *args):
    return run('/bin/sh', SETUP / 'find_python.sh', *args, PATH=folder)


@pytest.mark.parametrize('version', [(2, 7), (3, 9), (3, 13)])
def test_no_suitable_python(tmp_path, version):
    fake_python(tmp_path, 'python3', version)
    assert 'no Python 3.10, 3.11 or 3.12' in one_sentence(find(tmp_path))


def test_no_python_at_all(tmp_path):
    assert 'no Python 3.10' in one_sentence(find(tmp_path))


@pytest.mark.parametrize('version', [(3, 10), (3, 11), (3, 12)])
def test_default_python_is_taken(tmp_path, version):
    fake_python(tmp_path, 'python3', version)
    assert find(tmp_path).stdout == f'{tmp_path / "python3"}\n'


def test_another_python_stands_in(tmp_path):
    fake_python(tmp_path, 'python3', (3, 13))
    fake_python(tmp_path, 'python3.10', (3, 10))
    assert find(tmp_path).stdout == f'{tmp_path / "python3.10"}\n'


def test_named_python_is_never_replaced(tmp_path):
    fake_python(tmp_path, 'python3', (3, 11))
    fake_python(tmp_path, 'python3.13', (3, 13))
    line = one_sentence(find(tmp_path, tmp_path / 'python3.13'))
    assert f"'{tmp_path / 'python3.13'}' is not a working Python" in line
