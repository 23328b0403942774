"""Fixtures of the tests that ask real Caffe."""

from collections.abc import Iterator

import pytest
from caffe_root import CaffeRoot


@pytest.fixture
def caffe() -> Iterator[CaffeRoot]:
    """Real Caffe, in a fresh folder. Skips where there is none."""
    root = CaffeRoot.from_environment()
    if root is None:
        pytest.skip("CAFFE_ROOT is not set; docker/caffe-root.sh makes a root with real Caffe")
    with root:
        yield root
