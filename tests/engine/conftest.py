"""mmengine collects garbage for every data set it builds.

That takes half a second each with all of mmdet in memory: it is set aside.
"""

import gc

import pytest


@pytest.fixture(scope='package', autouse=True)
def frozen_garbage():
    from mmdet.utils import register_all_modules

    register_all_modules()
    gc.freeze()
    yield
    gc.unfreeze()
