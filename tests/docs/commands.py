"""The commands of the documentation, and whether the tools accept them.

Bash reads the blocks; every program is a stub that writes its words down. So
loops, here-documents and variables are what they are for a reader, and what
tools/dist_train.sh starts is seen as well.
"""

import argparse
import ast
import configparser
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from unittest import mock

import hetconv
from mmdet_hetconv import config_path

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / 'README.md',
    ROOT / 'CONTRIBUTING.md',
    *sorted((ROOT / 'docs').glob('*.md')),
    *sorted((ROOT / 'docs' / 'guide').glob('*.md')),
    *sorted((ROOT / 'docs' / 'results').glob('*.md')),
]
BLOCK = re.compile(
    r'(?:^<!-- not run: (?P<reason>[^\n]+?) -->\n)?'
    r'^```bash\n(?P<text>.*?)^```$',
    re.MULTILINE | re.DOTALL,
)
LINKED = ('tools', 'configs', 'benchmarks', 'docs', 'requirements')
STUBS = ('python', 'hetconv', 'pip', 'mim', 'make', 'srun', 'mpirun', 'pre-commit', 'pip-audit')
REAL = ('bash', 'cat', 'dirname', 'env', 'ls', 'mkdir')
STUB = """#!/bin/sh
printf '%s\\0' "${0##*/}" "$@" >"$LOG/$(date +%s%N)"
"""


@dataclass(frozen=True)
class Block:
    """A ```bash block: where it is, its text, and why it is not run."""

    page: Path
    line: int
    text: str
    reason: str | None

    def __str__(self):
        return f'{self.page.name}:{self.line}'


def read_blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding='utf-8')
    return [
        Block(page, text.count('\n', 0, match.start('text')), match['text'], match['reason'])
        for match in BLOCK.finditer(text)
    ]


def make_folder(folder: Path) -> None:
    """What a checkout looks like to the commands, with stubs on the path."""
    for name in LINKED:
        (folder / name).symlink_to(ROOT / name)
    programs = folder / 'bin'
    programs.mkdir()
    for name in STUBS:
        (programs / name).write_text(STUB)
        (programs / name).chmod(0o755)
    for name in (*REAL, 'date', 'sh'):
        (programs / name).symlink_to(shutil.which(name))


def seen_commands(block: Block, folder: Path) -> list[list[str]]:
    """The programs that bash starts for a block, with their arguments."""
    log = folder / 'log'
    shutil.rmtree(log, ignore_errors=True)
    log.mkdir()
    result = subprocess.run(
        [shutil.which('bash'), '-euo', 'pipefail', '-c', block.text],
        cwd=folder,
        env={'PATH': str(folder / 'bin'), 'LOG': str(log), 'HOME': str(folder)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, f'{block}: {result.stderr}'
    return [
        file.read_text().split('\0')[:-1]
        for file in sorted(log.iterdir(), key=lambda file: int(file.name))
    ]


class Parsed(BaseException):
    """Raised in place of what a script does after reading its arguments."""


def parse(script: Path, arguments: list[str]) -> None:
    """Let a script read its command line, and nothing more."""
    if 'parse_args' not in script.read_text(encoding='utf-8'):
        assert not arguments, f'{script.name} takes no arguments'
        return
    real = argparse.ArgumentParser.parse_args

    def parse_args(self, args=None, namespace=None):
        real(self, args, namespace)
        raise Parsed

    path = [str(script.parent), *sys.path]
    argv = [str(script), *arguments]
    with mock.patch.object(sys, 'argv', argv), mock.patch('sys.path', path):
        names = runpy.run_path(str(script), run_name='checked')
        if 'parse_args' in names:  # also what it finds out after parsing
            names['parse_args']()
            return
        with mock.patch('argparse.ArgumentParser.parse_args', parse_args):
            try:
                names['main']()
            except Parsed:
                return
    raise AssertionError(f'{script} did not read its arguments')


def check_python(words: list[str], folder: Path) -> None:
    if words[0] == '-c':
        ast.parse(words[1])
    elif words[:2] == ['-m', 'torch.distributed.run']:
        from torch.distributed.run import get_args_parser

        args = get_args_parser().parse_args(words[2:])
        check_python([args.training_script, *args.training_script_args], folder)
    elif words[0] == '-m':
        known = words[1] == 'build' or find_spec(words[1])
        assert known, f'no module {words[1]}'
    else:
        script = (folder / words[0]).resolve()
        assert script.is_file(), f'{words[0]} does not exist'
        for word in words[1:]:
            if word.startswith('configs/'):
                assert (folder / word).is_file(), f'{word} does not exist'
        parse(script, words[1:])


def check_make(words: list[str]) -> None:
    text = (ROOT / 'Makefile').read_text()
    for word in words:
        assert '=' in word or re.search(f'^{word}:', text, re.MULTILINE), word


def check_pip(words: list[str]) -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / 'setup.cfg')
    for word in words:
        extras = re.fullmatch(r'(?:\.|mmdet_hetconv)\[([\w,]+)\]', word)
        for extra in extras[1].split(',') if extras else ():
            assert extra in config['options.extras_require'], word
        if word.startswith('requirements/'):
            assert (ROOT / word).is_file(), word


def check_mim(words: list[str]) -> None:
    """The package is one that mim knows, and has the config."""
    command, package, *rest = words
    assert command in ('train', 'test', 'download'), command
    config = rest[rest.index('--config') + 1] if '--config' in rest else rest[0]
    if package == 'mmdet_hetconv':
        config_path(config)
    elif config != 'my_config.py':
        folder = Path(find_spec(package).origin).parent / '.mim' / 'configs'
        assert list(folder.rglob(f'{Path(config).stem}.py')), config


def check(words: list[str], folder: Path) -> None:
    """Raise if a command would not be accepted.

    Raises:
        AssertionError: a file, target, extra or config that does not exist.
        SystemExit: the tool's own parser refuses.
    """
    program, *rest = words
    if program == 'python':
        check_python(rest, folder)
    elif program in ('srun', 'mpirun'):
        check_python(rest[rest.index('python') + 1 :], folder)
    elif program == 'hetconv':
        tool = hetconv.find_tool(rest[0], list(hetconv.tools()))
        assert tool, f'no tool {rest[0]}'
        check_python([f'tools/{tool}.py', *map(hetconv.find_config, rest[1:])], folder)
    elif program == 'make':
        check_make(rest)
    elif program == 'pip':
        check_pip(rest)
    elif program == 'mim':
        check_mim(rest)


def check_page(page: Path, folder: Path) -> Iterator[tuple[Block, list[str]]]:
    """Check the commands of a page; those that were accepted."""
    make_folder(folder)
    for block in read_blocks(page):
        for words in seen_commands(block, folder):
            try:
                check(words, folder)
            except (AssertionError, SystemExit, ValueError) as error:
                raise AssertionError(f'{block}: {" ".join(words)}: {error}') from error
            yield block, words
    for name in LINKED:
        assert (folder / name).is_symlink(), f'{page} writes to {name}'
