"""A model's weights are inside its file: one that names other files is refused wherever models are opened."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pipeline.base.errors import InputError
from pipeline.base.onnx_file import read_onnx
from pipeline.faces.detector import build_detector
from pipeline.faces.mtcnn import open_net


def external(name: str, place: str) -> onnx.TensorProto:
    """A tensor whose four values are in another file."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=place)
    return tensor


def model(tmp_path: Path, kind: str, place: str = "weights.bin") -> Path:
    """y = x + weights, which are an initializer, a Constant's value, or in the branch of an If."""
    (tmp_path / "weights.bin").write_bytes(np.arange(4, dtype=np.float32).tobytes())
    weights = numpy_helper.from_array(np.arange(4, dtype=np.float32), "w") if kind == "inside" else external("w", place)
    stored, nodes = [], []
    if kind == "constant":
        nodes = [helper.make_node("Constant", [], ["w"], value=weights)]
    elif kind == "branch":
        given = helper.make_tensor_value_info("w", TensorProto.FLOAT, [4])
        branch = helper.make_graph([helper.make_node("Identity", ["inner"], ["w"])], "branch", [], [given])
        weights.name = "inner"
        branch.initializer.append(weights)
        stored = [numpy_helper.from_array(np.array(True), "yes")]
        nodes = [helper.make_node("If", ["yes"], ["w"], then_branch=branch, else_branch=branch)]
    else:
        stored = [weights]
    nodes.append(helper.make_node("Add", ["x", "w"], ["y"], "location"))
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in "xy")
    graph = helper.make_graph(nodes, "sum", [x], [y], stored)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    path = tmp_path / "model.onnx"
    path.write_bytes(made.SerializeToString())
    return path


def test_a_model_that_is_whole_is_read(tmp_path: Path) -> None:
    path = model(tmp_path, "inside")
    assert read_onnx(path) == path.read_bytes()


@pytest.mark.parametrize("kind", ["initializer", "constant", "branch"])
@pytest.mark.parametrize("place", ["weights.bin", "../weights.bin", "/etc/hostname", "*/_ORT_MEM_ADDR_/*"])
def test_weights_in_another_file_are_refused(tmp_path: Path, kind: str, place: str) -> None:
    with pytest.raises(InputError, match=r"model\.onnx: the weights '(w|inner)' are in another file, '.*'"):
        read_onnx(model(tmp_path, kind, place))


def test_what_is_no_onnx_file_is_refused(tmp_path: Path) -> None:
    for data in (b"\xff\xfflocation", b"\0\0\0\0ORTM\0\0"):
        (tmp_path / "model.onnx").write_bytes(data)
        with pytest.raises(InputError, match=r"model\.onnx: "):
            read_onnx(tmp_path / "model.onnx")


def test_no_detector_reads_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = model(tmp_path, "initializer")
    with pytest.raises(InputError, match="in another file"):
        open_net(path)
    for name in ("yolo", "yunet"):
        with pytest.raises(InputError, match="in another file"):
            build_detector(name, model=path)
