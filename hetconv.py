"""The command ``hetconv``: every tool of mmdet_hetconv by its name, wherever one is.

It imports neither torch nor mmdet, so that it lists the tools at once. It is a module of its
own since importing a part of mmdet_hetconv registers everything in mmdet first.
"""

import ast
import difflib
import runpy
import sys
from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

NAME = 'mmdet_hetconv'


def folder_of(package: str) -> Path | None:
    """Where an installed package lies, found without importing it."""
    spec = find_spec(package)
    return Path(spec.origin).parent if spec and spec.origin else None


def tools() -> dict[str, Path]:
    """The tools by name; the first line of each says what it does."""
    return {path.stem: path for path in sorted((folder_of(NAME) / '.mim/tools').glob('*.py'))}


def find_tool(name: str, known: Sequence[str]) -> str | None:
    """A tool by its name, or by the beginning of just one: 'convert', 'export'."""
    matching = [tool for tool in known if tool.startswith(name)]
    return name if name in known else matching[0] if len(matching) == 1 else None


def find_config(word: str) -> str:
    """The file of a config that is named without folder and ending; else the word."""
    if word.startswith('-') or '/' in word or Path(word).exists():
        return word
    for package in (NAME, 'mmdet'):
        folder = folder_of(package)
        pattern = f'{word.removesuffix(".py")}.py'
        found = sorted((folder / '.mim/configs').rglob(pattern)) if folder else []
        if found:
            return str(found[0])
    return word


def usage(known: dict[str, Path]) -> str:
    lines = ['usage: hetconv TOOL ARGUMENTS ..., where TOOL is one of', '']
    for tool, path in known.items():
        text = ast.get_docstring(ast.parse(path.read_text())) or ''
        lines.append(f'  {tool:20} {text.splitlines()[0]}')
    lines += ['', 'hetconv TOOL --help says more. A config may be named without folder and ending.']
    return '\n'.join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Run a tool.

    Raises:
        SystemExit: with 1 and a sentence if there is no such tool.
    """
    name, *rest = (sys.argv[1:] if argv is None else argv) or ['--help']
    known = tools()
    if name in ('-h', '--help'):
        print(usage(known))
    elif name == '--version':
        print(f'mmdet_hetconv {version(NAME)}')
    elif tool := find_tool(name.removesuffix('.py'), list(known)):
        sys.argv = [str(known[tool]), *map(find_config, rest)]
        runpy.run_path(str(known[tool]), run_name='__main__')
    else:
        close = difflib.get_close_matches(name, known, 1)
        hint = f', did you mean {close[0]}?' if close else '; hetconv --help lists them'
        raise SystemExit(f'hetconv: error: {name!r} is no tool{hint}')


if __name__ == '__main__':
    main()
