"""Run the commands of the documentation, as they stand, on tiny data.

    python -m tests.docs.run_commands [PAGE ...]

Every page has a sandbox of its own (see sandbox.py), in which its blocks run
in order. Blocks that are marked `<!-- not run: REASON -->` are named, and left
out, and so are the commands of docs/results, which took hours.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from .commands import PAGES, ROOT, Block, read_blocks
from .sandbox import READERS, make_sandbox

WORD = re.compile(rf'\b({"|".join(READERS)})\b')
PROMPT = 6  # lines of output shown of a block that failed
TIME_LIMIT = 900  # seconds a block may take


def run(block: Block, folder: Path) -> str | None:
    """The end of the output if a block fails."""
    programs = Path(sys.executable).parent
    environment = {
        **os.environ,
        'PATH': f'{programs}:{os.environ["PATH"]}',
        'PYTHONPATH': str(ROOT),
        'PYTHONWARNINGS': 'ignore',
        'HOME': str(folder),
        'XDG_CACHE_HOME': str(Path.home() / '.cache'),
    }
    text = WORD.sub(lambda match: READERS[match[0]], block.text)
    try:
        result = subprocess.run(
            ['bash', '-euo', 'pipefail', '-c', text],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors='replace',
            timeout=TIME_LIMIT,
        )
    except subprocess.TimeoutExpired:
        return f'not finished after {TIME_LIMIT} s'
    if result.returncode == 0:
        return None
    return '\n'.join(result.stdout.splitlines()[-PROMPT:])


def run_page(page: Path) -> tuple[int, int, int]:
    """Run the blocks of a page; how many ran, failed and were left out."""
    ran = failed = left_out = 0
    blocks = read_blocks(page)
    with tempfile.TemporaryDirectory() as folder:
        if any(block.reason is None for block in blocks):
            make_sandbox(Path(folder))
        for block in blocks:
            if block.reason:
                left_out += 1
                print(f'{block} not run: {block.reason}', flush=True)
                continue
            start = time.monotonic()
            problem = run(block, Path(folder))
            ran += 1
            failed += problem is not None
            state = 'ok' if problem is None else f'FAILED\n{problem}'
            spent = time.monotonic() - start
            print(f'{block} {spent:.0f} s, {state}', flush=True)
    return ran, failed, left_out


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('pages', nargs='*', type=Path, metavar='PAGE', help='default: all')
    args = parser.parse_args()
    pages = [page.resolve() for page in args.pages] or [
        page for page in PAGES if page.parent.name != 'results'
    ]
    ran, failed, left_out = map(sum, zip(*map(run_page, pages)))
    print(f'{ran} blocks ran, {failed} failed, {left_out} are marked')
    sys.exit(failed > 0)


if __name__ == '__main__':
    main()
