"""Prototxts and binary messages: what is wrong is named with line and column, what is right comes back."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from pipeline.caffe.proto.blob_proto import from_blobproto, read_mean, to_blobproto, write_mean
from pipeline.caffe.proto.caffe_pb2 import BlobProto, NetParameter, SolverState
from pipeline.caffe.proto.files import BinaryError, PrototxtError, read_binary, read_net, write_binary, write_prototxt

FLOATS = st.floats(width=32, allow_nan=False)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('name: "n"\nlayer {\n  name "x" }', "net.prototxt:3:8"),
        ('layer {\n  name: "x"\n  kernel: 3\n}', "net.prototxt:3:3"),
        ('layer { name: "x" phase: DEPLOY }', "DEPLOY"),
        ("layer { loss_weight: many }", "net.prototxt:1:"),
        ('layer { name: "x" }\nlayers { name: "y" type: RELU }', "net.prototxt:2: layer 'y': 'layers'"),
        ('\nlayers { layer { name: "y" type: "relu" pad: 1 } }', "net.prototxt:2: layer 'y': 'pad'"),
        ('input: "data" input_dim: 1', "net.prototxt: 1 input_dim for 1 input"),
    ],
)
def test_a_prototxt_that_does_not_parse_is_named_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(text)
    with pytest.raises(PrototxtError) as error:
        read_net(path)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_binary_file_is_no_prototxt(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_bytes(b"\x0a\xff\xfe")
    with pytest.raises(PrototxtError, match="is not UTF-8"):
        read_net(path)


def test_a_written_prototxt_reads_back(tmp_path: Path) -> None:
    net = NetParameter(name='a "quoted" name')
    net.layer.add(name="x", type="ReLU", bottom=["a"], top=["b"])
    write_prototxt(tmp_path / "net.prototxt", net)
    assert read_net(tmp_path / "net.prototxt") == net


@pytest.mark.parametrize("content", [b"", b"\x00", b"not a message at all", b"\x0a\xff\xff\xff\xff\x07abc"])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.solverstate"
    path.write_bytes(content)
    with pytest.raises(BinaryError, match=r"x\.solverstate: .*SolverState"):
        read_binary(path, SolverState)


def test_a_truncated_mean_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mean.binaryproto"
    write_mean(path, np.ones((1, 4, 5)))
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(BinaryError, match="truncated"):
        read_mean(path)


@given(array=arrays(np.float32, array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=4), elements=FLOATS))
def test_a_blob_comes_back(array: np.ndarray) -> None:
    blob = BlobProto.FromString(to_blobproto(array).SerializeToString())
    assert list(blob.data) == array.ravel().tolist()
    np.testing.assert_array_equal(from_blobproto(blob, "it"), array)


@given(shape=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=6), count=st.integers(0, 9))
def test_a_blob_holds_as_many_values_as_its_shape_or_is_refused(shape: list[int], count: int) -> None:
    blob = BlobProto(data=[0.0] * count)
    blob.shape.dim.extend(shape)
    possible = all(dim >= 0 for dim in shape) and math.prod(dim or 1 for dim in shape) < 2**31
    if possible and math.prod(shape) == count:
        assert from_blobproto(blob, "it").shape == tuple(shape)
    else:
        with pytest.raises(BinaryError, match=r"^it: "):
            from_blobproto(blob, "it")


def test_a_mean_file_has_the_old_form_and_no_shape(tmp_path: Path) -> None:
    mean = np.arange(12, dtype=np.float32).reshape(1, 3, 4)
    write_mean(tmp_path / "mean.binaryproto", mean)
    blob = read_binary(tmp_path / "mean.binaryproto", BlobProto)
    assert (blob.num, blob.channels, blob.height, blob.width) == (1, 1, 3, 4)
    assert not blob.HasField("shape")
    np.testing.assert_array_equal(read_mean(tmp_path / "mean.binaryproto"), mean)


def test_a_caffemodel_is_no_mean_file(tmp_path: Path) -> None:
    write_binary(tmp_path / "mean.binaryproto", to_blobproto(np.ones((2, 3))))
    with pytest.raises(BinaryError, match=r"shape \(2, 3\) where a mean image"):
        read_mean(tmp_path / "mean.binaryproto")
