"""Compile the fused CPU kernel, once per machine.

The kernel is one C++ file without dependencies. It is built with the
compiler at hand ($CXX, else c++) for the processor at hand and kept in the
user's cache folder, named by a hash of source, compiler and processor. Where
that folder cannot be trusted or written, each process compiles for itself.
"""

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

from filelock import FileLock
from mmengine.logging import print_log

from ...utils.private_folder import check_private, private_folder
from .abi import declare

SOURCE = Path(__file__).parent / 'csrc' / 'fused_cpu.cpp'
FLAGS = ('-O3', '-march=native', '-ffp-contract=fast', '-std=c++17', '-shared', '-fPIC', '-fopenmp')
TIMEOUT_S = 300
# The name's beginning and end while the compiler writes.
PART = ('.fused_cpu_', '.part')


def _processor() -> str:
    """What -march=native depends on."""
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
    except OSError:
        return platform.processor()
    wanted = ('model name', 'flags', 'Features')
    return '\n'.join(sorted({line for line in lines if line.startswith(wanted)}))


def _command() -> list[str]:
    """The compiler with what $CXX puts before and behind it.

    Raises:
        OSError: there is none.
    """
    text = os.environ.get('CXX') or 'c++'
    try:
        command = shlex.split(text)
    except ValueError as error:
        raise OSError(f'CXX={text!r} cannot be read: {error}') from error
    if not command or shutil.which(command[0]) is None:
        raise FileNotFoundError(f'no C++ compiler, {text!r} is not there')
    return command


def _sum_of(library: Path) -> Path:
    """Where the hash of a library is kept."""
    return library.with_suffix('.sha256')


def _is_whole(library: Path) -> bool:
    """Whether a library is what the compiler wrote, by its hash.

    To load one that is cut off may end the process.

    Raises:
        PermissionError: somebody else may have written it.
    """
    try:
        check_private(library)
        digest = hashlib.sha256(library.read_bytes()).hexdigest()
        return _sum_of(library).read_text() == digest
    except FileNotFoundError:
        return False


def _build(command: list[str], target: Path) -> None:
    """Compile to a file of its own, then rename: other processes see the
    whole library or none."""
    print_log(f'HetConv: compiling {SOURCE.name} (once)', 'current')
    prefix, suffix = PART
    handle, name = tempfile.mkstemp(suffix, prefix, target.parent)
    os.close(handle)
    part = Path(name)
    try:
        subprocess.run(
            [*command, *FLAGS, '-o', name, str(SOURCE)],
            check=True,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )
        part.chmod(0o700)  # umask may let a group write it
        digest = hashlib.sha256(part.read_bytes()).hexdigest()
        _sum_of(target).write_text(digest)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _build_once(command: list[str], target: Path) -> None:
    """Build what is missing or damaged; other processes wait meanwhile."""
    with FileLock(target.parent / '.lock', TIMEOUT_S, mode=0o600):
        # Of processes that were killed: nobody else compiles now.
        prefix, suffix = PART
        for left in target.parent.glob(f'{prefix}*{suffix}'):
            left.unlink(missing_ok=True)
        if not _is_whole(target):
            _build(command, target)


def _compile_and_load(command: list[str]) -> ctypes.CDLL:
    version = subprocess.run(
        [*command, '--version'], check=True, capture_output=True, text=True, timeout=TIMEOUT_S
    ).stdout
    depends = (version, command, FLAGS, _processor())
    digest = hashlib.sha256(repr(depends).encode())
    for source in (SOURCE, *sorted(SOURCE.parent.glob('*.h'))):  # what it includes, too
        digest.update(source.read_bytes())
    name = f'fused_cpu_{digest.hexdigest()[:16]}.so'
    try:
        target = private_folder('kernels') / name
        if not _is_whole(target):
            _build_once(command, target)
    except (OSError, NotImplementedError) as error:
        # The latter of file systems without locks.
        print_log(f'HetConv: compiled kernels are not kept: {error}', 'current', level=30)
        # Once loaded, the file is not needed any more.
        with tempfile.TemporaryDirectory(prefix='mmdet_hetconv_') as folder:
            target = Path(folder) / name
            _build(command, target)
            return declare(ctypes.CDLL(str(target)))
    return declare(ctypes.CDLL(str(target)))


def _first_error(error: Exception) -> str:
    """What went wrong, in one line."""
    lines = (getattr(error, 'stderr', None) or str(error)).splitlines()
    telling = [line for line in lines if 'error' in line.lower()]
    return (telling or lines or [type(error).__name__])[0][:300]


@functools.cache
def load_library() -> tuple[ctypes.CDLL | None, str | None]:
    """The compiled kernel, or None and why there is none."""
    try:
        command = _command()
    except OSError as error:
        return None, str(error)
    try:
        return _compile_and_load(command), None
    except (AttributeError, OSError, subprocess.SubprocessError) as error:
        reason = f'{SOURCE.name} did not build: {_first_error(error)}'
        print_log(f'HetConv: {reason}', 'current', level=30)
        return None, reason
