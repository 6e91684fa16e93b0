"""The tools without a checkout: ``python -m mmdet_hetconv TOOL ARGUMENTS``."""

import ast
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

TOOLS = Path(__file__).parent / '.mim' / 'tools'


def tools() -> dict[str, Path]:
    """The tools by name; the first line of each says what it does."""
    return {path.stem: path for path in sorted(TOOLS.glob('*.py'))}


def main(argv: Sequence[str]) -> None:
    found = tools()
    name = argv[0].removesuffix('.py') if argv else ''
    if name in found:
        sys.argv = [str(found[name]), *argv[1:]]
        runpy.run_path(str(found[name]), run_name='__main__')
        return
    lines = ['usage: python -m mmdet_hetconv TOOL ARGUMENTS ..., of the tools', '']
    for tool, path in found.items():
        text = ast.get_docstring(ast.parse(path.read_text())) or ''
        lines.append(f'  {tool:20} {text.splitlines()[0]}')
    usage = '\n'.join(lines)
    if name in ('', '-h', '--help'):
        print(usage)
        return
    raise SystemExit(f'{usage}\n\nmmdet_hetconv: error: {name!r} is no tool')


if __name__ == '__main__':
    main(sys.argv[1:])
