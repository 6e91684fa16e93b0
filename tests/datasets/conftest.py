"""The fixtures of tests/engine hold here, too."""

from tests.engine.conftest import frozen_garbage, scope_of_mmdet  # noqa: F401
