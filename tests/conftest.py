"""Fixtures for the tests of every stage."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from record_databases import make_databases
from small_set import noise, write_csv

from pipeline.extract import extract


@pytest.fixture
def small_csv(tmp_path: Path) -> Path:
    """fer2013.csv of 40 images of noise: 24 Training, 8 PublicTest, 8 PrivateTest."""
    path = tmp_path / "fer2013.csv"
    write_csv(path, noise(40))
    return path


@pytest.fixture
def small_manifest(small_csv: Path, tmp_path: Path) -> Path:
    """What extract makes of small_csv."""
    extract(small_csv, tmp_path / "images")
    return tmp_path / "images/manifest.csv"


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter, as tmp_path is not."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def recorded_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with our images and databases of the set that real Caffe's answers were recorded for."""
    folder = tmp_path_factory.mktemp("recorded_set")
    make_databases(folder)
    return folder
