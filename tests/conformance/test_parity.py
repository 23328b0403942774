"""docs/parity.md, which this suite writes, has a row for everything that there is."""

import re
from pathlib import Path

import pytest
from parity import TABLES

from pipeline.caffe.__main__ import COMMANDS
from pipeline.caffe.fillers import FILLERS
from pipeline.caffe.layers import CAFFE_LAYERS
from pipeline.caffe.solver import POLICIES, SOLVERS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/parity.md"


@pytest.fixture(autouse=True)
def page_is_written(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--parity", default=None):
        pytest.skip("this run writes the page")


def rows(table: str) -> set[str]:
    """The first cells of a table's rows."""
    section = PAGE.read_text(encoding="utf-8").split(f"\n## {table}\n")[1].split("\n## ")[0]
    return set(re.findall(r"^\| ([^|]+?) \| \d+ \|", section, re.MULTILINE))


@pytest.mark.parametrize(
    ("table", "names"),
    [("Layers", CAFFE_LAYERS), ("Solvers", SOLVERS), ("Learning rate policies", POLICIES), ("Fillers", FILLERS)],
)
def test_every_name_of_a_registry_has_a_row(table: str, names: dict[str, object]) -> None:
    assert rows(table) == set(names), "run CAFFE_ROOT=DIR pytest tests/conformance --parity docs/parity.md"


def test_every_command_that_caffe_has_is_compared() -> None:
    compared = {row.removeprefix("caffe ") for row in rows("Tools")}
    # Caffe has none of these; draw_net and the two of logs are scripts, which Debian does not package.
    own = {"average_snapshots", "export_onnx", "summary"}
    assert set(COMMANDS) - own <= compared | {"plot_training_log"}


def test_every_format_is_compared() -> None:
    binary = {"caffemodel", "caffemodel HDF5", "caffemodel of V0 and V1", "solverstate", "solverstate HDF5"}
    others = {"Datum", "HDF5 data", "LEVELDB", "LMDB", "mean binaryproto", "prototxt of V0 and V1"}
    assert rows("File formats") == binary | others


def test_every_net_is_compared() -> None:
    folders = {path.parent.name for path in (ROOT / "prototxt").glob("**/train_val.prototxt")}
    drawn = {"drawn at random"}  # those of test_random_nets.py
    assert rows("Nets") == folders - {"face_emotion_net"} | {"FaceEmotionNet"} | drawn


@pytest.mark.parametrize("table", TABLES)
def test_no_table_is_empty(table: str) -> None:
    assert rows(table)
