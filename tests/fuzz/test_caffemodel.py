"""Altered weights, solver states, means and sidecars: read, or an error of one line, soon and without much memory.

FUZZ_EXAMPLES=1000 pytest tests/fuzz/test_caffemodel.py
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from helpers.altering import Alteration, alterations, altered, fuzzed
from helpers.little import little
from hypothesis import given
from hypothesis import strategies as st

from pipeline.base.errors import InputError
from pipeline.caffe.net import Net
from pipeline.caffe.proto.blob_proto import read_mean, write_mean
from pipeline.caffe.proto.caffe_pb2 import TEST, BlobProto, NetParameter, SolverParameter
from pipeline.caffe.proto.files import parse_text, read_weights, write_binary
from pipeline.caffe.solver import Solver, get_solver, snapshot

NET = """
layer { name: "data" type: "DummyData" top: "data" top: "y" dummy_data_param {
  shape { dim: 2 dim: 1 dim: 5 dim: 4 } shape { dim: 2 dim: 3 } data_filler { type: "gaussian" } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" convolution_param { num_output: 2 kernel_size: 2
  weight_filler { type: "xavier" } } }
layer { name: "bn" type: "BatchNorm" bottom: "conv" top: "conv" }
layer { name: "fc" type: "InnerProduct" bottom: "conv" top: "fc" inner_product_param { num_output: 3
  weight_filler { type: "xavier" } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "fc" bottom: "y" top: "loss" }
"""
KINDS = ("flip", "flip", "set", "insert", "cut", "copy", "drop")


def parse(text: str = NET) -> NetParameter:
    return parse_text(text, NetParameter, "net")


def solver() -> Solver:
    text = f"""type: "Adam" lr_policy: "multistep" gamma: 0.5 stepvalue: 1 base_lr: 0.01 random_seed: 3 momentum2: 0.9
        net_param {{ {NET} }}"""
    return get_solver(parse_text(text, SolverParameter, "solver"))


@contextmanager
def refusing(*paths: Path) -> Iterator[None]:
    """Let InputErrors about one of the files pass, and no others."""
    try:
        with little():
            yield
    except InputError as error:
        said = str(error)
    else:
        return
    assert said.startswith(tuple(f"{path}: " for path in paths))
    assert "\n" not in said
    assert len(said) < 2000


def today() -> bytes:
    return Net(parse(), TEST, seed=1).to_proto().SerializeToString()


def in_form(old: Callable[[NetParameter, NetParameter], None]) -> Callable[[], bytes]:
    def make() -> bytes:
        source, message = Net(parse(), TEST, seed=1).to_proto(), NetParameter(name="old", input=["data"])
        old(source, message)
        return message.SerializeToString()

    return make


def as_v1(source: NetParameter, message: NetParameter) -> None:
    for layer in source.layer:
        if layer.blobs and layer.type != "BatchNorm":
            kind = {"Convolution": "CONVOLUTION", "InnerProduct": "INNER_PRODUCT"}[layer.type]
            added = message.layers.add(name=layer.name, type=kind, blobs_lr=[1, 2], bottom=layer.bottom, top=layer.top)
            added.blobs.extend(layer.blobs)


def as_v0(source: NetParameter, message: NetParameter) -> None:
    for layer in source.layer:
        if layer.blobs and layer.type != "BatchNorm":
            added = message.layers.add(bottom=["data"], top=[layer.name])
            added.layer.name, added.layer.type = layer.name, {"Convolution": "conv"}.get(layer.type, "innerproduct")
            for blob in layer.blobs:
                shape = [1] * (4 - len(blob.shape.dim)) + list(blob.shape.dim)
                added.layer.blobs.add(data=blob.data, num=shape[0], channels=shape[1], height=shape[2], width=shape[3])


@pytest.mark.parametrize("make", [today, in_form(as_v1), in_form(as_v0)], ids=["today", "V1", "V0"])
@fuzzed
@given(todo=alterations(*KINDS))
def test_weights(make: Callable[[], bytes], todo: list[Alteration], tmp_path: Path) -> None:
    path = tmp_path / "x.caffemodel"
    path.write_bytes(altered(make(), todo))
    net = Net(parse(), TEST)
    with refusing(path):
        net.copy_from(path)
        net.forward()


@fuzzed
@given(data=st.binary(max_size=40))
def test_bytes(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.caffemodel"
    path.write_bytes(data)
    with refusing(path):
        list(read_weights(path).layer)
    with refusing(path):
        read_mean(path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> snapshot.Snapshot:
    made = solver()
    made.step()
    return snapshot.save(made, str(tmp_path_factory.mktemp("snapshot") / "run"))


@pytest.mark.parametrize("kind", ["weights", "state", "sidecar"])
@fuzzed
@given(todo=alterations(*KINDS, "word"))
def test_a_snapshot(kind: str, todo: list[Alteration], whole: snapshot.Snapshot, tmp_path: Path) -> None:
    copy = snapshot.Snapshot(str(tmp_path / "run"), whole.iteration)
    for each in ("weights", "state", "sidecar"):
        content = getattr(whole, each).read_bytes()
        getattr(copy, each).write_bytes(altered(content, todo) if each == kind else content)
    made = solver()
    # A changed sum in the sidecar looks like a change of the file that it is of.
    files = ("sidecar", "state", "weights") if kind == "sidecar" else (kind,)
    with refusing(*(getattr(copy, each) for each in files)):
        snapshot.restore(made, copy.state)
        made.step()


@pytest.mark.parametrize("shaped", [False, True])
@fuzzed
@given(todo=alterations(*KINDS))
def test_a_mean(shaped: bool, todo: list[Alteration], tmp_path: Path) -> None:
    path = tmp_path / "mean.binaryproto"
    write_mean(path, np.arange(24, dtype=np.float32).reshape(2, 3, 4))
    if shaped:
        blob = BlobProto(data=range(24))
        blob.shape.dim.extend([1, 2, 3, 4])
        write_binary(path, blob)
    path.write_bytes(altered(path.read_bytes(), todo))
    with refusing(path):
        assert read_mean(path).ndim == 3
