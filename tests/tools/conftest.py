"""What mmengine keeps from one Runner to the next in one process."""

import gc

import pytest
from mmengine.logging import MessageHub, MMLogger
from mmengine.visualization import Visualizer


@pytest.fixture(autouse=True)
def fresh_process():
    """As in a new process: no logger, no visualizer of an earlier run."""
    gc.freeze()  # mmengine collects garbage for every data set it builds
    yield
    gc.unfreeze()
    forget()


def forget():
    """Set what mmengine keeps aside."""
    for kind in (MMLogger, MessageHub, Visualizer):
        kind._instance_dict.clear()
    for kind in Visualizer.__subclasses__():
        kind._instance_dict.clear()
