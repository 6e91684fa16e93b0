"""For all tests."""

import os

import pytest


@pytest.fixture(scope='session', autouse=True)
def cache_of_its_own(tmp_path_factory):
    """The user's cache folder stays as it is; child processes, too.

    What is compiled is compiled once for all workers of pytest-xdist.
    """
    folder = tmp_path_factory.getbasetemp()
    if 'PYTEST_XDIST_WORKER' in os.environ:
        folder = folder.parent
    cache = folder / 'cache'
    cache.mkdir(exist_ok=True)
    before = os.environ.get('XDG_CACHE_HOME')
    os.environ['XDG_CACHE_HOME'] = str(cache)
    yield
    del os.environ['XDG_CACHE_HOME']
    if before is not None:
        os.environ['XDG_CACHE_HOME'] = before


@pytest.fixture
def bfloat16_anywhere(monkeypatch):
    """bf16 also where the processor multiplies none, and the form is refused.

    The numbers are the same there, only slow.
    """
    monkeypatch.setattr('mmdet_hetconv.deploy.precision._computes_bf16', lambda device: True)
