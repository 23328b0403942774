"""Fixtures for the tests of every stage."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers import portraits
from helpers.record_databases import make_databases
from helpers.small_set import noise, write_csv

from pipeline.stages.extract import extract


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


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder of the small net with random weights."""
    from helpers.trained_net import make_trained_net  # imports torch, which most tests do without

    folder = tmp_path_factory.mktemp("model")
    make_trained_net(noise(40), folder).export(folder / "model")
    return folder / "model"


@pytest.fixture(scope="session")
def pems(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for localhost and 127.0.0.1, signed by itself, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl on this machine, which makes a certificate")
    folder = tmp_path_factory.mktemp("pems")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost,IP:127.0.0.1",
            "-keyout",
            key,
            "-out",
            certificate,
        ],
        check=True,
        capture_output=True,
    )
    return certificate, key


@pytest.fixture(scope="session")
def portrait() -> np.ndarray:
    """A photograph of one face, (600, 512, 3): it comes with matplotlib."""
    return portraits.portrait()
