"""mmengine collects garbage for every data set it builds.

That takes half a second each with all of mmdet in memory: it is set aside.
"""

import gc

import pytest
from mmengine.registry import init_default_scope


@pytest.fixture(scope='package', autouse=True)
def frozen_garbage():
    from mmdet.utils import register_all_modules

    register_all_modules()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def scope_of_mmdet(frozen_garbage):
    """Where names in configs are looked up; runners of tests change it."""
    init_default_scope('mmdet')
