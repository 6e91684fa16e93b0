"""Build mmcv's CPU ops as a wheel in minutes and keep it for next time.

mmcv ships no wheels for current torch. Its own build compiles 77 files one
by one with debug symbols (22.5 minutes on 2 cores). 57 of them compile as a
single translation unit, which together with ``-g0`` makes it 3.5 minutes.

Run by the Python the wheel is for, with torch and setuptools<81 installed:

    python tools/setup/build_mmcv.py 2.1.0 --out DIR
    python tools/setup/build_mmcv.py 2.3.6 --package onedl-mmcv --out DIR

The wheel lies in DIR when, and only when, the build has succeeded. An
existing wheel for this Python and this torch is used as it is.
"""

import argparse
import fcntl
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CSRC = 'mmcv/ops/csrc/pytorch'
STEP = re.compile(r'^\[(\d+)/(\d+)\] ')
ERROR = re.compile(r'[eE]rror: ')
MOST_REASONS = 10


def wheel_folder(root: Path) -> Path:
    """The folder of wheels that fit this interpreter and this torch."""
    import torch

    tag = f'cp{sys.version_info.major}{sys.version_info.minor}'
    return root / f'{tag}-torch{torch.__version__}'


@contextmanager
def build_folder(folder: Path) -> Iterator[Path]:
    """An empty folder in ``folder``, for one build at a time.

    Also removes what a killed build has left.
    """
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / 'unfinished'
    with open(folder / 'lock', 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        yield unfinished
        shutil.rmtree(unfinished)


def unpack_sources(package: str, version: str, folder: Path) -> Path:
    """Download the source package and unpack it into ``folder``."""
    subprocess.run([
        sys.executable, '-m', 'pip', 'download', '--quiet', '--no-deps',
        '--no-binary', package, '--no-build-isolation', '--dest',
        str(folder), f'{package}=={version}'
    ], check=True)  # yapf: disable
    name = f'{package.replace("-", "_")}-{version}'
    with tarfile.open(folder / f'{name}.tar.gz') as tar:
        tar.extractall(folder, filter='data')
    return folder / name


def merge_translation_units(source: Path) -> int:
    """Make one translation unit of the ``*.cpp`` directly under pytorch/.

    Those under pytorch/cpu/ define equal names and have to stay separate.

    Returns:
        int: the number of files merged.
    """
    folder = source / CSRC
    parts = folder / 'parts'
    parts.mkdir()
    names = sorted(file.name for file in folder.glob('*.cpp'))
    for name in names:
        (folder / name).rename(parts / name)
    includes = ''.join(f'#include "parts/{name}"\n' for name in names)
    (folder / 'all_ops.cpp').write_text(includes)
    return len(names)


def compile_wheel(source: Path, out: Path, log: Path) -> None:
    """Run the build with one line of progress; raise if it fails."""
    env = {**os.environ, 'MMCV_WITH_OPS': '1', 'CFLAGS': '-g0', 'CUDA_VISIBLE_DEVICES': ''}
    command = [
        sys.executable, '-m', 'pip', 'wheel', '--verbose', '--no-deps',
        '--no-build-isolation', '--no-cache-dir', '--wheel-dir', str(out),
        str(source)
    ]  # yapf: disable
    start = time.monotonic()
    with open(log, 'w') as file:
        process = subprocess.Popen(
            command,
            env=env,
            text=True,
            errors='replace',
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for line in process.stdout:
            file.write(line)
            step = STEP.match(line.strip())
            if step:
                spent = time.monotonic() - start
                print(
                    f'\rmmcv: compiled {step[1]} of {step[2]} units, {spent:.0f} s',
                    end='',
                    flush=True,
                )
    print()
    if process.wait() != 0:
        reasons = [line for line in log.read_text().splitlines() if ERROR.search(line)]
        sys.stderr.write('\n'.join([*reasons[:MOST_REASONS], '']))
        raise SystemExit(f'error: building mmcv failed; all of its output is in {log}')


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('version', help='version of mmcv, for example 2.1.0')
    parser.add_argument(
        '--package',
        default='mmcv',
        help='name in the registry: mmcv, or its maintained fork onedl-mmcv',
    )
    parser.add_argument(
        '--out', type=Path, required=True, metavar='DIR', help='folder the wheels are kept in'
    )
    args = parser.parse_args()

    folder = wheel_folder(args.out)
    wheel_name = f'{args.package.replace("-", "_")}-{args.version}-*.whl'
    kept = sorted(folder.glob(wheel_name))
    if not kept:
        print(
            'mmcv: building the CPU ops, about 4 minutes on 2 cores; this is done once', flush=True
        )
        # The same file system, so that the last step is an atomic rename.
        with build_folder(folder) as temporary:
            source = unpack_sources(args.package, args.version, temporary)
            merge_translation_units(source)
            compile_wheel(source, temporary / 'wheel', folder / 'build.log')
            (wheel,) = (temporary / 'wheel').glob(wheel_name)
            wheel.rename(folder / wheel.name)
        kept = sorted(folder.glob(wheel_name))
    print(f'mmcv: installing {kept[0].name}')
    subprocess.run([
        sys.executable, '-m', 'pip', 'install', '--quiet', '--no-deps',
        str(kept[0])
    ], check=True)  # yapf: disable


if __name__ == '__main__':
    main()
