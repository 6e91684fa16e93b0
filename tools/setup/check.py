"""Tell whether this machine can be set up, before anything is downloaded.

    python tools/setup/check.py --room DIR GB [--room DIR GB ...]

Standard library only; the version of Python is find_python.sh's matter. Exit
status 0 and no word if all is well, otherwise one sentence that says what is
missing and what to do about it.
"""

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path


def check_venv() -> str | None:
    """A sentence if Python cannot make virtual environments with pip."""
    if importlib.util.find_spec('ensurepip') is not None:
        return None
    return (
        f'{sys.executable} has no ensurepip, so no virtual environment can '
        'be made: install the package python3-venv of your system.'
    )


def compiles(compiler: str, source: str, *options: str) -> bool:
    """Whether ``source`` passes the compiler."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / 'probe.cpp'
        file.write_text(source)
        command = [*compiler.split(), '-fsyntax-only', *options, str(file)]
        return subprocess.run(command, capture_output=True).returncode == 0


def check_compiler() -> str | None:
    """A sentence if mmcv's C++ sources cannot be compiled here."""
    # setuptools builds with the compiler that Python was built with.
    usual = sysconfig.get_config_var('CXX') or 'c++'
    compiler = os.environ.get('CXX') or usual
    if shutil.which(compiler.split()[0]) is None:
        return (
            f'A C++ compiler is needed to build mmcv and `{compiler}` was not '
            'found: install g++ or name yours with CXX=...'
        )
    if not compiles(compiler, '#include <concepts>\n', '-std=c++20'):
        return (
            f'`{compiler}` does not compile C++20, which torch asks for: '
            'install g++ 10 or newer or name another compiler with CXX=...'
        )
    include = sysconfig.get_path('include')
    if not compiles(compiler, '#include <Python.h>\n', f'-I{include}'):
        return (
            f'{include}/Python.h is missing, mmcv cannot be built without '
            'it: install the package python3-dev of your system.'
        )
    return None


def check_disk(folder: Path, needed_gb: float) -> str | None:
    """A sentence if there is too little room where ``folder`` will be."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    free_gb = shutil.disk_usage(place).free / 1e9
    if free_gb >= needed_gb:
        return None
    return (
        f'{needed_gb:g} GB of disk space are needed for {folder} and '
        f'{free_gb:.1f} GB are free: make room, or ask for less with '
        '`make DISK_GB=4 ...` where pip finds a CPU build of torch.'
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        '--room',
        nargs=2,
        action='append',
        default=[],
        metavar=('DIR', 'GB'),
        help='room needed on the disk of this folder',
    )
    args = parser.parse_args()
    problems = [check_venv(), check_compiler()]
    problems += [check_disk(Path(name), float(gb)) for name, gb in args.room]
    problem = next(filter(None, problems), None)
    if problem:
        raise SystemExit(f'error: {problem}')


if __name__ == '__main__':
    main()
