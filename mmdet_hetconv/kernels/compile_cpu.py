"""Compile the fused CPU kernel, once per machine.

The kernel is one C++ file without dependencies. It is built with the
compiler at hand ($CXX, else c++) for the processor at hand and kept in the
user's cache folder, named by a hash of source, compiler and processor.
"""

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

from mmengine.logging import print_log

SOURCE = Path(__file__).parent / 'csrc' / 'fused_cpu.cpp'
FLAGS = (
    '-O3',
    '-march=native',
    '-ffp-contract=fast',
    '-std=c++17',
    '-shared',
    '-fPIC',
    '-fopenmp',
)
TIMEOUT_S = 300
# Of hetconv_fused.
ARGUMENTS = [ctypes.c_void_p] * 7 + [ctypes.c_int64, ctypes.c_int]
ARGUMENTS += [ctypes.c_int64, ctypes.c_int]


def cache_folder() -> Path:
    """Where compiled kernels are kept: below $XDG_CACHE_HOME."""
    base = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    return Path(base) / 'mmdet_hetconv' / 'kernels'


def _processor() -> str:
    """What -march=native depends on."""
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
    except OSError:
        return platform.processor()
    wanted = ('model name', 'flags', 'Features')
    return '\n'.join(
        sorted({line for line in lines if line.startswith(wanted)})
    )


def _build(compiler: str, target: Path) -> None:
    """Compile to a file of its own, then rename: other processes see the
    whole library or none."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(suffix='.so', dir=target.parent)
    os.close(handle)
    try:
        subprocess.run(
            [compiler, *FLAGS, '-o', name, str(SOURCE)],
            check=True,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )
        os.replace(name, target)
    finally:
        Path(name).unlink(missing_ok=True)


@functools.cache
def load_library() -> tuple[ctypes.CDLL | None, str | None]:
    """The compiled kernel, or None and why there is none."""
    compiler = shutil.which(os.environ.get('CXX') or 'c++')
    if compiler is None:
        return None, 'no C++ compiler'
    try:
        version = subprocess.run(
            [compiler, '--version'], check=True, capture_output=True
        ).stdout
        digest = hashlib.sha256(SOURCE.read_bytes())
        digest.update(version + repr((FLAGS, _processor())).encode())
        target = cache_folder() / f'fused_cpu_{digest.hexdigest()[:16]}.so'
        if not target.exists():
            print_log(f'HetConv: compiling {SOURCE.name} (once)', 'current')
            _build(compiler, target)
        library = ctypes.CDLL(str(target))
        library.hetconv_fused.argtypes = ARGUMENTS
        return library, None
    except (OSError, subprocess.SubprocessError) as error:
        message = getattr(error, 'stderr', None) or str(error)
        reason = f'{SOURCE.name} did not build: {message[:500]}'
        print_log(f'HetConv: {reason}', 'current', level=30)
        return None, reason
