"""Caffe's file tools: what ours write is what real Caffe's write, byte for byte."""

import csv
import json
import re
import shutil
from contextlib import chdir
from pathlib import Path

import pytest
from caffe_root import CaffeRoot
from helpers.run_tool import run_tool
from parity import Parity
from tooling import (
    BATCHES,
    BLOBS,
    MEANS,
    RECORDED,
    SETS,
    TOOLS,
    caffe_answers,
    make_folder,
    make_weights,
    recorded_answers,
    sha256,
)
from upgrading import NAMES, UPGRADES, legacy_net

from pipeline.caffe.database import DatabaseReader, datum_to_array
from pipeline.caffe.draw import to_dot
from pipeline.caffe.proto.caffe_pb2 import TEST, TRAIN, NetParameter, Phase
from pipeline.caffe.proto.files import read_net, write_binary
from pipeline.caffe.tools.plot_training_log import curves_of
from pipeline.caffe.train_log_parser import read_history

DRAWN = {"lenet": None, "lenet TRAIN": TRAIN, "lenet TEST": TEST, "googlenet TEST": TEST, "mnist_siamese TRAIN": TRAIN}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tools' folder with our databases and features."""
    folder = tmp_path_factory.mktemp("tools")
    make_folder(folder)
    with chdir(folder):
        for name, (flags, _) in SETS.items():
            run_tool("convert_imageset", *flags, "images/", f"{name}.txt", f"{name}_lmdb")
        make_weights(folder)
        run_tool(
            "extract_features",
            "features.caffemodel",
            "features.prototxt",
            ",".join(BLOBS),
            ",".join(f"{blob}_lmdb" for blob in BLOBS),
            BATCHES,
            "lmdb",
        )
    return folder


@pytest.mark.parametrize("name", SETS)
def test_convert_imageset(name: str, folder: Path, parity: Parity) -> None:
    assert sha256(folder / f"{name}_lmdb/data.mdb") == recorded_answers()[f"convert_imageset/{name}"]
    parity("Tools", "convert_imageset", "bytes", 0)


@pytest.mark.parametrize("blob", BLOBS)
def test_extract_features(blob: str, folder: Path, parity: Parity) -> None:
    assert sha256(folder / f"{blob}_lmdb/data.mdb") == recorded_answers()[f"extract_features/{blob}"]
    parity("Tools", "extract_features", "bytes", 0)


@pytest.mark.parametrize("name", [*MEANS, "conv"])
def test_compute_image_mean(
    name: str, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, parity: Parity
) -> None:
    with caplog.at_level("INFO", logger="pipeline"):
        run_tool("compute_image_mean", folder / f"{name}_lmdb", tmp_path / "mean.binaryproto")
    answers = recorded_answers()
    assert sha256(tmp_path / "mean.binaryproto") == answers[f"compute_image_mean/{name}"]
    parity("Tools", "compute_image_mean", "bytes", 0)
    parity("File formats", "mean binaryproto", "bytes", 0)
    said = [message for message in caplog.messages if message.startswith("mean_value")]
    assert "; ".join(said) == answers[f"compute_image_mean/{name} says"]
    parity("Tools", "compute_image_mean", "output", 0)


@pytest.mark.parametrize("name", NAMES)
def test_upgrade_net_proto_text(name: str, tmp_path: Path, parity: Parity) -> None:
    run_tool("upgrade_net_proto_text", UPGRADES / f"{name}.prototxt", tmp_path / "new.prototxt")
    recorded = (UPGRADES / f"recorded/{name}.prototxt").read_text().partition("\n")[2]
    assert (tmp_path / "new.prototxt").read_text() == recorded
    parity("Tools", "upgrade_net_proto_text", "bytes", 0)


@pytest.mark.parametrize("name", sorted(path.name for path in TOOLS.glob("*.solver.prototxt")))
def test_upgrade_solver_proto_text(name: str, tmp_path: Path, parity: Parity) -> None:
    run_tool("upgrade_solver_proto_text", TOOLS / name, tmp_path / "new.prototxt")
    assert (tmp_path / "new.prototxt").read_text() == recorded_answers()[f"upgrade_solver_proto_text/{name}"]
    parity("Tools", "upgrade_solver_proto_text", "bytes", 0)


@pytest.mark.parametrize("table", ["train", "test"])
def test_parse_log(table: str, tmp_path: Path, parity: Parity) -> None:
    """Against the tables that Caffe's own parse_log.py makes of a log of real Caffe's."""
    run_tool("parse_log", TOOLS / "training.log", tmp_path)
    name = f"training.log.{table}"
    assert (tmp_path / name).read_bytes() == (RECORDED / name).read_bytes()
    parity("Tools", "parse_log", "bytes", 0)


@pytest.mark.parametrize(
    ("quantity", "table", "column"),
    [("Test accuracy", "test", "accuracy"), ("Test loss", "test", "loss"), ("Train loss", "train", "loss")],
)
def test_plot_training_log(quantity: str, table: str, column: str, parity: Parity) -> None:
    """What is plotted is what stands in the tables that Caffe's own parse_log.py makes."""
    (values,) = curves_of(quantity, read_history(TOOLS / "training.log"), "training.log").values()
    with open(RECORDED / f"training.log.{table}", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) > 10
    # The log tells of one loss more than of outputs: the last forward's.
    plotted = [(value.iteration, value.seconds, value.value) for value in values[: len(rows)]]
    numbers = [tuple(float(row[name]) for name in ("NumIters", "Seconds", column)) for row in rows]
    assert [(iteration, value) for iteration, _, value in plotted] == [(row[0], row[2]) for row in numbers]
    assert [seconds for _, seconds, _ in plotted] == pytest.approx([row[1] for row in numbers], abs=1e-4)
    parity("Tools", "plot_training_log", "output", 0)


def test_real_caffe_answers_as_recorded(caffe: CaffeRoot) -> None:
    assert caffe_answers(caffe) == recorded_answers()


@pytest.mark.parametrize("name", NAMES)
def test_upgrade_net_proto_binary(name: str, caffe: CaffeRoot, tmp_path: Path, parity: Parity) -> None:
    write_binary(caffe.folder / "old.caffemodel", legacy_net(name))
    caffe.run("upgrade_net_proto_binary", "old.caffemodel", "new.caffemodel")
    run_tool("upgrade_net_proto_binary", caffe.folder / "old.caffemodel", tmp_path / "new.caffemodel")
    assert (tmp_path / "new.caffemodel").read_bytes() == (caffe.folder / "new.caffemodel").read_bytes()
    parity("Tools", "upgrade_net_proto_binary", "bytes", 0)


def test_leveldbs(folder: Path, caffe: CaffeRoot, tmp_path: Path, parity: Parity) -> None:
    """Each writes the same log, which is all there is until a LevelDB is opened again, and reads the other's."""
    make_folder(caffe.folder)
    arguments = ("-backend=leveldb", *SETS["check_size"][0], "images/", "check_size.txt")
    caffe.run("convert_imageset", *arguments, "theirs")
    with chdir(folder):
        run_tool("convert_imageset", *arguments, tmp_path / "ours")
    assert (tmp_path / "ours/000003.log").read_bytes() == (caffe.folder / "theirs/000003.log").read_bytes()
    parity("Tools", "convert_imageset", "bytes", 0)
    shutil.copytree(tmp_path / "ours", caffe.folder / "ours")
    shutil.copytree(caffe.folder / "theirs", tmp_path / "theirs")
    caffe.run("compute_image_mean", "-backend=leveldb", "ours", "mean.binaryproto")
    run_tool("compute_image_mean", "-backend", "leveldb", tmp_path / "theirs", tmp_path / "mean.binaryproto")
    assert (caffe.folder / "mean.binaryproto").read_bytes() == (tmp_path / "mean.binaryproto").read_bytes()
    assert sha256(tmp_path / "mean.binaryproto") == recorded_answers()["compute_image_mean/check_size"]
    parity("Tools", "compute_image_mean", "bytes", 0)
    parity("File formats", "mean binaryproto", "bytes", 0)


def test_features_that_are_sums(folder: Path, caffe: CaffeRoot, parity: Parity) -> None:
    """Sums of many products, which libraries add in orders of their own, differ in their last digits."""
    shutil.copytree(folder, caffe.folder, dirs_exist_ok=True)
    arguments = ("features.caffemodel", "features.prototxt", "scores")
    caffe.run("extract_features", *arguments, "theirs", "2", "leveldb")
    with chdir(caffe.folder):
        run_tool("extract_features", *arguments, "ours", 2, "leveldb")
    ours, theirs = (dict(DatabaseReader(caffe.folder / name, "leveldb")) for name in ("ours", "theirs"))
    assert ours.keys() == theirs.keys() == {b"%010d" % number for number in range(10)}
    for key, datum in theirs.items():
        values, wanted = datum_to_array(ours[key], "ours"), datum_to_array(datum, "theirs")
        deviation = float(abs(values - wanted).max() / abs(wanted).max())
        assert deviation < 1e-5
        parity("Tools", "extract_features", "values", deviation)


# pycaffe draws through pydot, which is not in the root: this one only tells of the boxes and arrows.
PYDOT = """
import json, sys, types
class Dot:
    def __init__(self, *name, **options): self.arrows = []
    def add_node(self, node): pass
    def add_edge(self, edge): self.arrows.append(edge)
pydot = types.ModuleType("pydot")
pydot.Dot, pydot.Node, pydot.Edge = Dot, lambda label, **style: label, lambda source, target, label: (source, target)
sys.modules["pydot"] = pydot
from caffe import draw
from caffe.proto import caffe_pb2
from google.protobuf import text_format
net = text_format.Parse(open("net.prototxt").read(), caffe_pb2.NetParameter())
phase = {"None": None, "0": 0, "1": 1}[sys.argv[1]]
print(json.dumps(draw.get_pydot_graph(net, "TB", phase=phase).arrows))
"""


@pytest.mark.parametrize("name", DRAWN)
def test_draw_net(name: str, caffe: CaffeRoot, parity: Parity) -> None:
    """The same layers as pycaffe draws."""
    path = TOOLS.parents[2] / f"prototxt/classics/{name.split(maxsplit=1)[0]}/train_val.prototxt"
    shutil.copy(path, caffe.folder / "net.prototxt")
    drawn = json.loads(caffe.run("python3", "-c", PYDOT, str(DRAWN[name])).splitlines()[0])
    theirs = {label.strip('"').split()[0] for arrow in drawn for label in arrow if "(" in label}
    assert drawn_layers(read_net(path), DRAWN[name]) == theirs
    parity("Tools", "draw_net", "layers", 0)


def drawn_layers(net: NetParameter, phase: Phase | None) -> set[str]:
    """The names of the layers in a drawing: in bold, or in the boxes of others."""
    text = "".join(to_dot(net, "TB", phase))
    titles = re.findall(r'<FONT POINT-SIZE="13"[^>]*><B>(.*?)</B>', text)
    return {*titles, *re.findall(r"<TD BGCOLOR[^>]*><FONT[^>]*>(\S+)", text)}
