"""Compiling the fused CPU kernel: compilers, the cache, other processes.

A script stands for the compiler. It counts its calls, and what it makes can
be loaded and has the kernel's symbols, but computes nothing.
"""

import ctypes
import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch

from mmdet_hetconv.kernels import PlannedConv2d
from mmdet_hetconv.kernels.cpu import candidates
from mmdet_hetconv.kernels.cpu import library as cpu_library
from mmdet_hetconv.kernels.cpu.abi import STRUCTS
from mmdet_hetconv.kernels.cpu.library import load_library

from .cases import build, expected

REAL = shutil.which('c++')
pytestmark = pytest.mark.skipif(REAL is None, reason='no C++ compiler')
SYMBOLS = """extern "C" {
int hetconv_fused() { return 0; }
void hetconv_max_pool() {}
void hetconv_struct_sizes(long long* sizes) { %s }
}"""
SIZES = [ctypes.sizeof(struct) for struct in STRUCTS]
SCRIPT = """#!/bin/sh
case "$*" in *--version) echo fake; exit;; esac
echo "$*" >> {folder}/calls
{before}
while [ "$1" != -o ]; do shift; done
cp {folder}/made.so "$2"
"""
fork = multiprocessing.get_context('fork')


@pytest.fixture(scope='module')
def made(tmp_path_factory) -> Path:
    """A library with the kernel's symbols."""
    folder = tmp_path_factory.mktemp('made')
    build_fake(folder, SIZES)
    return folder / 'made.so'


def build_fake(folder: Path, sizes: list[int]) -> None:
    source = folder / 'made.cpp'
    filled = ' '.join(f'sizes[{i}] = {size};' for i, size in enumerate(sizes))
    source.write_text(SYMBOLS % filled)
    os.system(f'{REAL} -shared -fPIC -o {folder / "made.so"} {source}')


class Fake:
    """The compiler, the cache and the log of one test."""

    def __init__(self, folder: Path, made: Path, monkeypatch):
        shutil.copy(made, folder / 'made.so')
        self.folder, self.log = folder, []
        self.command = folder / 'compiler'
        self.cache = folder / 'mmdet_hetconv' / 'kernels'
        self.write(before='')
        monkeypatch.setenv('CXX', str(self.command))
        monkeypatch.setenv('XDG_CACHE_HOME', str(folder))
        monkeypatch.setattr(
            cpu_library, 'print_log', lambda message, *args, **kwargs: self.log.append(message)
        )

    def write(self, before: str) -> None:
        text = SCRIPT.format(folder=self.folder, before=before)
        self.command.write_text(text)
        self.command.chmod(0o755)

    def calls(self) -> list[str]:
        return (self.folder / 'calls').read_text().splitlines()

    def libraries(self) -> list[Path]:
        return sorted(self.cache.glob('fused_cpu_*.so'))

    def load(self) -> None:
        """What each process does once."""
        library, reason = load_library.__wrapped__()
        assert reason is None
        assert library.hetconv_fused

    def warnings(self) -> list[str]:
        return [line for line in self.log if 'compiling' not in line]


@pytest.fixture
def fake(tmp_path, made, monkeypatch) -> Fake:
    return Fake(tmp_path, made, monkeypatch)


def test_compiles_once_into_a_folder_of_ones_own(fake):
    before = os.umask(0o002)
    try:
        fake.load()
    finally:
        os.umask(before)
    fake.load()
    assert len(fake.calls()) == 1
    assert fake.warnings() == []
    (library,) = fake.libraries()
    for path in (fake.cache, fake.cache.parent, library):
        assert path.stat().st_mode & 0o777 == 0o700


def test_without_a_home_folder(fake, monkeypatch):
    def home():
        raise RuntimeError('Could not determine home directory.')

    monkeypatch.delenv('XDG_CACHE_HOME')
    monkeypatch.setattr(Path, 'home', home)
    fake.load()
    (warning,) = fake.warnings()
    assert 'not kept: no home folder' in warning


@pytest.mark.parametrize('place', range(len(SIZES)))
def test_structs_of_other_sizes_are_not_called(fake, place):
    build_fake(fake.folder, [size + 8 * (i == place) for i, size in enumerate(SIZES)])
    with pytest.raises(RuntimeError, match=f'{STRUCTS[place].__name__} has {SIZES[place]} bytes'):
        fake.load()


@pytest.mark.parametrize('form', ['env {}', '{} -O2', "'{}'"])
def test_compiler_with_launcher_arguments_and_quotes(fake, monkeypatch, form):
    monkeypatch.setenv('CXX', form.format(fake.command))
    fake.load()
    (call,) = fake.calls()
    assert ('-O2' in call) == ('-O2' in form)


@pytest.mark.parametrize(
    'value, reason',
    [
        ('no-such-compiler -O2', "no C++ compiler, 'no-such-compiler -O2'"),
        ('"open', "CXX='\"open' cannot be read"),
    ],
)
def test_says_which_compiler_is_not_there(fake, monkeypatch, value, reason):
    monkeypatch.setenv('CXX', value)
    library, told = load_library.__wrapped__()
    assert library is None
    assert told.startswith(reason)


@pytest.mark.parametrize('share', [0, 0.5])
def test_empty_and_cut_libraries_are_built_again(fake, share):
    fake.load()
    (library,) = fake.libraries()
    content = library.read_bytes()
    # A file of its own: this process has the old one loaded.
    library.unlink()
    library.write_bytes(content[: int(share * len(content))])
    library.chmod(0o700)
    fake.load()
    fake.load()
    assert len(fake.calls()) == 2
    assert library.read_bytes() == content


def test_what_a_killed_process_leaves_is_removed(fake):
    fake.write(before='sleep 0.5')
    process = fork.Process(target=fake.load)
    process.start()
    deadline = time.monotonic() + 10
    while not list(fake.cache.glob('.fused_cpu_*.part')):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGTERM)
    process.join()
    assert len(list(fake.cache.glob('.fused_cpu_*.part'))) == 1
    fake.write(before='')
    fake.load()
    assert not list(fake.cache.glob('*.part'))
    assert not list(fake.cache.glob('tmp*'))


def test_of_several_processes_one_compiles(fake):
    fake.write(before='sleep 0.2')
    processes = [fork.Process(target=fake.load) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert len(fake.calls()) == 1


def plant(fake: Fake, path: Path) -> None:
    """Put a library that is not ours under the name of ours."""
    path.unlink()
    path.write_bytes(b'planted')


def test_folder_that_others_may_write_is_not_used(fake):
    fake.load()
    (library,) = fake.libraries()
    plant(fake, library)
    fake.cache.chmod(0o777)
    fake.load()
    (warning,) = fake.warnings()
    assert f'{fake.cache} is writable by others (mode 777)' in warning
    assert library.read_bytes() == b'planted'
    assert len(fake.calls()) == 2


def test_library_that_others_may_write_is_not_loaded(fake):
    fake.load()
    (library,) = fake.libraries()
    library.chmod(0o777)
    fake.load()
    (warning,) = fake.warnings()
    assert f'{library} is writable by others (mode 777)' in warning
    assert len(fake.calls()) == 2


def test_folder_of_another_user_is_not_used(fake, monkeypatch):
    fake.cache.mkdir(parents=True, mode=0o700)
    fake.cache.parent.chmod(0o700)
    if os.geteuid() == 0:
        other = 12345
        os.chown(fake.cache, other, -1)
    else:
        other = os.geteuid()
        monkeypatch.setattr(os, 'geteuid', lambda: other + 1)
    fake.load()
    (warning,) = fake.warnings()
    assert f'belongs to user {other}' in warning
    assert not fake.libraries()


def test_source_that_does_not_compile_is_one_line_and_another_is_taken(fake, monkeypatch):
    broken = fake.folder / 'broken.cpp'
    broken.write_text('// a comment\nint hetconv_fused( { return 0; }\n')
    monkeypatch.setattr(cpu_library, 'SOURCE', broken)
    monkeypatch.setenv('CXX', REAL)
    load_library.cache_clear()
    try:
        layer, x = build('plain')
        conv = PlannedConv2d(layer)
        y = conv(x)
    finally:
        load_library.cache_clear()
    torch.testing.assert_close(y.double(), expected(layer, x), rtol=1e-4, atol=2e-5)
    (warning,) = fake.warnings()
    assert 'broken.cpp did not build' in warning
    assert 'error:' in warning
    assert '\n' not in warning
    assert 'not fused_cpu: broken.cpp did not build' in str(conv.plan)
    assert candidates.FusedCPU.name not in str(conv._prepared)
