"""Fixtures of the conformance tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from caffe_root import CaffeRoot
from harness import make_databases
from parity import Parity
from solving import make_training_folder

from pipeline.caffe.common import allow_python_layers

PARITY = pytest.StashKey[Parity]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--parity", type=Path, metavar="FILE", help="write docs/parity.md from what was measured")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[PARITY] = Parity()


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    path = session.config.getoption("--parity", default=None)
    if path and exitstatus == 0:
        session.config.stash[PARITY].write(path)


@pytest.fixture(scope="session")
def parity(request: pytest.FixtureRequest) -> Parity:
    """parity(table, row, column, deviation) enters a measurement into docs/parity.md."""
    return request.config.stash.setdefault(PARITY, Parity())


@pytest.fixture(scope="module")
def databases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the databases that data layers of the cases read."""
    folder = tmp_path_factory.mktemp("databases")
    make_databases(folder)
    return folder


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """These nets are too small for two: handing work over takes longer than the work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def python_layers() -> Iterator[None]:
    """The cases' Python layers, those of python_layers.py, may run."""
    allow_python_layers()
    yield
    allow_python_layers(False)


@pytest.fixture(scope="session")
def training_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the solvers' cases read. Copy it: a solver writes its snapshots there."""
    folder = tmp_path_factory.mktemp("training")
    make_training_folder(folder)
    return folder


@pytest.fixture
def caffe() -> Iterator[CaffeRoot]:
    """Real Caffe, in a fresh folder. Skips where there is none."""
    root = CaffeRoot.from_environment()
    if root is None:
        pytest.skip("CAFFE_ROOT is not set; docker/caffe-root.sh makes a root with real Caffe")
    with root:
        yield root
