"""The upgrade tools: what they say, and what they refuse; and prototxts as C++ prints them."""

import math
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from helpers.run_tool import run_tool
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.base.errors import InputError
from pipeline.caffe.proto.caffe_pb2 import BlobProto, LayerParameter, NetParameter, SolverParameter
from pipeline.caffe.proto.files import to_text, write_binary

CURRENT = {"upgrade_net_proto_text": 'layer { name: "a" type: "ReLU" }', "upgrade_solver_proto_text": 'type: "SGD"'}


@pytest.mark.parametrize("tool", CURRENT)
def test_a_file_in_todays_form_is_told_and_copied(tool: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    old, new = tmp_path / "old.prototxt", tmp_path / "new.prototxt"
    old.write_text(f"# a comment\n{CURRENT[tool]}")
    run_tool(tool, old, new)
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert told == [f"File already in latest proto format: {old}"]
    kind = SolverParameter if "solver" in tool else NetParameter
    assert text_format.Parse(new.read_text(), kind()) == text_format.Parse(CURRENT[tool], kind())
    run_tool(tool, new, new)  # onto itself
    assert text_format.Parse(new.read_text(), kind()) == text_format.Parse(CURRENT[tool], kind())


@pytest.mark.parametrize(
    ("tool", "text", "error"),
    [
        ("upgrade_net_proto_text", "\nlayers { nose: 1 }", "old:2:10"),
        ("upgrade_net_proto_text", '\nlayers { layer { name: "a" type: "warp" } }', "old:2: layer 'a': type 'warp'"),
        ("upgrade_solver_proto_text", "solver_type: LBFGS", "old:1:14"),
        ("upgrade_solver_proto_text", 'solver_type: SGD type: "SGD"', "old: both type 'SGD' and the solver_type"),
        ("upgrade_net_proto_binary", "layer { }", "old: no whole binary NetParameter"),
        ("upgrade_net_proto_binary", "", "old: an empty NetParameter"),
    ],
)
def test_bad_input_is_an_error_and_leaves_nothing(tool: str, text: str, error: str, tmp_path: Path) -> None:
    (tmp_path / "old").write_text(text)
    with pytest.raises(InputError, match=error):
        run_tool(tool, tmp_path / "old", tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def test_weights_that_cannot_be_upgraded_are_refused(tmp_path: Path) -> None:
    net = text_format.Parse('layers { layer { name: "a" type: "warp" } }', NetParameter())
    write_binary(tmp_path / "old", net)
    with pytest.raises(InputError, match="old: layer 'a': type 'warp' is none of V0's"):
        run_tool("upgrade_net_proto_binary", tmp_path / "old", tmp_path / "new")


def test_numbers_and_letters_are_printed_as_cpp_prints_them() -> None:
    layer = LayerParameter(name='é"\n', propagate_down=[True, False])
    layer.loss_weight.extend([1, 0.1, 1 / 3, 1e-10, 1e-40, math.inf, -math.inf, math.nan, -0.0, 16777216])
    layer.blobs.add().double_data.extend([1, 0.1, 1 / 3, 1e300, 123456789012345678])
    values = {line.split(": ", 1)[1] for line in "".join(to_text(layer)).splitlines() if ": " in line}
    assert values == {
        '"\\303\\251\\"\\n"',
        "true",
        "false",
        "1",
        "0.1",
        "0.333333343",
        "1e-10",
        "9.9999461e-41",
        "inf",
        "-inf",
        "nan",
        "-0",
        "16777216",
        "0.33333333333333331",
        "1e+300",
        "1.2345678901234568e+17",
    }


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(width=32)), st.lists(st.floats()), st.text())
def test_what_is_printed_is_read_back(singles: list[float], doubles: list[float], name: str) -> None:
    blob = BlobProto(data=singles, double_data=doubles)
    layer = LayerParameter(name=name.encode("utf-8", "ignore").decode(), blobs=[blob])
    read = text_format.Parse("".join(to_text(layer)), LayerParameter())
    assert read.name == layer.name
    assert np.array_equal(np.array(read.blobs[0].data, np.float32), np.array(singles, np.float32), equal_nan=True)
    assert np.array_equal(read.blobs[0].double_data, doubles, equal_nan=True)
