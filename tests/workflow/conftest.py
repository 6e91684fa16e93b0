"""The fixtures of tests/comfort hold here, too."""

from tests.comfort.conftest import frozen_garbage, scope_of_mmdet  # noqa: F401
