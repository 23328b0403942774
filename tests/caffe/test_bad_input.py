"""Files that are damaged, absurd or wrong: one line that says what, where and what was expected, soon and cheaply."""

import json
import logging
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.little import BYTES, little

from pipeline.base.errors import InputError
from pipeline.caffe import memory_budget
from pipeline.caffe.layers import LayerError
from pipeline.caffe.net import Net, build_net
from pipeline.caffe.proto.blob_proto import read_mean, to_blobproto
from pipeline.caffe.proto.caffe_pb2 import TEST, TRAIN, BlobProto, NetParameter, SolverParameter, SolverState
from pipeline.caffe.proto.files import parse_text, read_net, read_solver, read_weights, write_binary
from pipeline.caffe.proto.prototxt_errors import find_layers, find_line
from pipeline.caffe.solver import Solver, get_solver, naming_solver, snapshot

HEAD = """name: "n"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 8 dim: 9 } } }
layer { name: "label" type: "Input" top: "label" input_param { shape { dim: 2 } } }
"""
NOT_BEFORE = "is the top of no layer before it in this phase"


def layer(kind: str, more: str = "", bottom: str = "data", name: str = "it", top: str = "x") -> str:
    bottoms = " ".join(f'bottom: "{each}"' for each in bottom.split())
    return f'layer {{ name: "{name}" type: "{kind}" {bottoms} top: "{top}" {more} }}\n'


def of_shape(dims: str, kind: str = "Input", param: str = "input_param") -> str:
    return f'layer {{ name: "in" type: "{kind}" top: "in" {param} {{ shape {{ {dims} }} }} }}\n'


def refusal(act: Callable[[], object], more_bytes: int = BYTES) -> str:
    """What the InputError says that it raises, in one line, soon and without much memory."""
    with little(more_bytes), pytest.raises(InputError) as error:
        act()
    said = str(error.value)
    assert "\n" not in said
    assert len(said) < 1000
    return said


NETS = {
    # What is not there, or not yet.
    "a bottom that nobody makes": (
        layer("ReLU", bottom="dta"),
        f":4: layer 'it': bottom 'dta' {NOT_BEFORE}; did you mean 'data'?",
    ),
    "a bottom that a later layer makes": (
        layer("ReLU", bottom="late") + layer("ReLU", name="maker", top="late"),
        f":4: layer 'it': bottom 'late' {NOT_BEFORE}; layer 'maker', which comes after it, makes it: layers are listed "
        "in the order in which they are computed (line 5)",
    ),
    "a cycle": (
        layer("ReLU", bottom="c", name="a", top="a")
        + layer("ReLU", bottom="a", name="b", top="b")
        + layer("Eltwise", bottom="data b", name="c", top="c"),
        f":4: layer 'a': bottom 'c' {NOT_BEFORE}: layers need one another's tops in a cycle, 'a' -> 'b' -> 'c' -> 'a'",
    ),
    "a layer on itself": (layer("Eltwise", bottom="data x"), "in a cycle, 'it' -> 'it'"),
    "two makers of a top": (
        layer("ReLU", name="first") + layer("ReLU"),
        ":5: layer 'it': top 'x' is already made by layer 'first' (line 4)",
    ),
    "no labels": (
        layer("SoftmaxWithLoss"),
        ":4: layer 'it': 1 bottom where SoftmaxWithLoss takes 2; the last is the labels",
    ),
    "two layers with weights and one name": (
        layer("InnerProduct", "inner_product_param { num_output: 3 }")
        + layer("InnerProduct", "inner_product_param { num_output: 3 }", top="y"),
        ":5: layer 'it': another layer has this name, by which files of weights tell blobs apart; rename one (line 4)",
    ),
    # Shapes that do not go together.
    "shapes that differ": (
        layer("Pooling", "pooling_param { kernel_size: 2 stride: 2 }", name="half", top="half")
        + layer("Eltwise", bottom="data half"),
        ":5: layer 'it': bottoms of shapes (2, 3, 8, 9), (2, 3, 4, 5) where one shape was expected",
    ),
    "labels of too few": (
        layer("SoftmaxWithLoss", bottom="data label"),
        "2 labels of shape (2,) where scores of shape (2, 3, 8, 9) have 144 predictions",
    ),
    "a reshape that does not divide": (
        layer("Reshape", "reshape_param { shape { dim: 7 dim: -1 } }"),
        "bottom of shape (2, 3, 8, 9), 432 values, cannot take the shape (7, -1), whose known axes do not divide them",
    ),
    "a reshape to fewer": (
        layer("Reshape", "reshape_param { shape { dim: 7 } }"),
        "432 values, cannot take the shape (7,) of 7",
    ),
    # Numbers.
    "num_output 0": (
        layer("InnerProduct", "inner_product_param { num_output: 0 }"),
        ":4: layer 'it': num_output 0 where at least 1 was expected",
    ),
    "no num_output": (
        layer("Convolution", "convolution_param { kernel_size: 3 }"),
        ":4: layer 'it': num_output 0 where at least 1 was expected",
    ),
    "a negative pad": (
        layer("Convolution", "convolution_param {\n num_output: 2 kernel_size: 3 pad: -1 }"),
        ":5:36: pad -1 where an integer from 0 to 4294967295 was expected",
    ),
    "kernel 0": (
        layer("Pooling", "pooling_param { kernel_size: 0 }"),
        "kernel (0, 0), stride (1, 1), pad (0, 0) where",
    ),
    "a kernel beyond the picture": (
        layer("Convolution", "convolution_param { num_output: 1 kernel_size: 30 }"),
        "kernel (30, 30) is larger than the padded bottom of shape (2, 3, 8, 9)",
    ),
    "a group that does not divide": (
        layer("Convolution", "convolution_param { num_output: 3 kernel_size: 1 group: 2 }"),
        "group 2 does not divide 3 channels and num_output 3",
    ),
    "a slice of nothing": (
        layer("Slice", "slice_param { axis: 1 slice_point: 3 }", top='x" top: "y'),
        "slice_point [3] where 1 rising numbers between 0 and 3",
    ),
    "a filler's numbers": (
        layer("InnerProduct", 'inner_product_param { num_output: 1 weight_filler { type: "uniform" min: 2 max: 1 } }'),
        "filler 'uniform' from min 2 to max 1",
    ),
    "a deviation below 0": (
        layer("InnerProduct", 'inner_product_param { num_output: 1 weight_filler { type: "gaussian" std: -1 } }'),
        "filler 'gaussian' with std -1",
    ),
    # Names.
    "an unknown type": (
        layer("Convolutoin"),
        ":4: layer 'it': type 'Convolutoin' is unknown; did you mean 'Convolution'?",
    ),
    "a type like no other": (layer("Quux"), "type 'Quux' is unknown; the engine has AbsVal, Accuracy"),
    "no type": ('layer { name: "it" bottom: "data" top: "x" }', ":4: layer 'it': it has no type, such as type"),
    "no name": ('layer { type: "ReLU" bottom: "zz" top: "x" }', ":4: layer '': bottom 'zz'"),
    "an unknown field": (
        layer("Convolution", "convolution_param { num_outputs: 2 }"),
        ":4:84: 'num_outputs' is no field of ConvolutionParameter; did you mean 'num_output'?",
    ),
    "a field like no other": (layer("ReLU", "quux: 1"), "'quux' is no field of LayerParameter; see LayerParameter in"),
    "an unknown value": (
        layer("Pooling", "pooling_param { pool: AVG }"),
        "pool AVG where MAX, AVE or STOCHASTIC was expected",
    ),
    "a number for a text": ("layer { name: 3 }", ":4:15: name 3 where a text in quotes was expected"),
    "a field twice": ('layer { name: "a"\n name: "b" }', ":5:8: 'name' is given a second time, where it may be once"),
    "an unfinished layer": ('layer { name: "a" ', ": the text ends where a } for this was expected; is it truncated?"),
    "an unfinished text": (
        'layer { name: "a }\n',
        ':4:15: name "a } where a text with a quote at its end was expected',
    ),
    "no UTF-8": ('layer { name: "\\xff" }', ":4:"),
    "a long line": ("layer { " + 'bottom: "a" ' * 5000 + " pad: 1 }", ":4:60010: 'pad' is no field of LayerParameter"),
    # Sizes.
    "a huge weight": (
        layer("InnerProduct", "inner_product_param { num_output: 2000000000 }"),
        ":4: layer 'it': blob 0 of shape (2000000000, 216) where at most 32 axes of at least 0 and "
        "2147483647 values were expected",
    ),
    "a huge kernel": (
        layer("Convolution", "convolution_param { num_output: 2000000000 kernel_size: 3 }"),
        "values were",
    ),
    "a huge table": (
        layer("Embed", "embed_param { num_output: 50000 input_dim: 50000 }", bottom="label"),
        "values were",
    ),
    "a huge tile": (layer("Tile", "tile_param { tiles: 2000000000 }"), "top 'x' of shape (2, 6000000000, 8, 9) where"),
    "a huge pad": (
        layer("Pooling", "pooling_param { kernel_size: 2000000001 stride: 2000000000 pad: 2000000000 }"),
        "reach over",
    ),
    "a huge pyramid": (layer("SPP", "spp_param { pyramid_height: 4000000000 }"), "layer 'it': kernel"),
    "a huge input": (of_shape("dim: 100000 dim: 100000"), ":4: layer 'in': top 'in' of shape (100000, 100000) where"),
    "a negative input": (of_shape("dim: -1 dim: 4"), "top 'in' of shape (-1, 4) where"),
    "an empty input": (of_shape("dim: 1 dim: 0"), "top 'in' of shape (1, 0) where an axis after the first has"),
    "a thousand axes": (of_shape("dim: 1 " * 1000), "top 'in' of a shape of 1000 axes where at most 32"),
    "huge drawn data": (of_shape("dim: 60000 dim: 60000", "DummyData", "dummy_data_param"), "values were"),
}


@pytest.mark.parametrize("case", NETS)
def test_a_net_that_cannot_be_built(tmp_path: Path, case: str) -> None:
    text, said = NETS[case]
    path = tmp_path / "net.prototxt"
    path.write_text(HEAD + text)
    message = refusal(lambda: build_net(path, TRAIN))
    assert message.startswith(f"{path}:")
    assert said in message


@pytest.mark.parametrize(
    "text",
    [
        of_shape("dim: 40000 dim: 40000", "DummyData", "dummy_data_param"),
        HEAD + layer("InnerProduct", "inner_product_param { num_output: 9000000 }"),
        HEAD + layer("Tile", "tile_param { tiles: 4000000 }"),
        HEAD + "".join(layer("Tile", "tile_param { tiles: 800000 }", name=f"{i}", top=f"{i}") for i in range(5)),
    ],
)
def test_a_net_for_which_there_is_no_memory_is_refused_before_it_takes_any(
    tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_budget, "memory_of", lambda device: 4 << 30)
    path = tmp_path / "net.prototxt"
    path.write_text(text)
    said = refusal(lambda: build_net(path, TRAIN))
    assert "GiB where there are 4.0 GiB of memory" in said
    assert said.startswith(f"{path}:")


def test_what_lies_in_the_memory_of_others_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    fields = 'param { name: "w" } inner_product_param { num_output: 216 bias_term: false }'
    shared = "".join(
        layer("InnerProduct", fields, bottom=bottom, name=top, top=top)
        for bottom, top in zip(["data", "a", "b", "c"], "abcd", strict=True)
    )
    viewed = layer("Flatten", name="flat", top="flat") + layer("ReLU", bottom="flat", name="relu", top="flat")
    text = HEAD + shared + viewed
    taken = 4 * (2 * 3 * 8 * 9 + 2 + 4 * 2 * 216)  # the inputs and four tops; a split's are the blob that it splits
    taken += 4 * 2 * 216 * 216  # the weight, and a second one until it is known that it is shared
    monkeypatch.setattr(memory_budget, "memory_of", lambda device: taken)
    Net(parse_text(text, NetParameter, "net"), TRAIN)
    monkeypatch.setattr(memory_budget, "memory_of", lambda device: taken // 2)
    with pytest.raises(InputError, match="memory"):
        Net(parse_text(text, NetParameter, "net"), TRAIN)


def test_the_memory_of_this_machine_is_known() -> None:
    assert 1 << 28 < memory_budget.memory_of(torch.device("cpu")) < 1 << 50


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "net.prototxt: net '' has no layers"),
        ('name: "n"', "net.prototxt: net 'n' has no layers"),
        (
            layer("Silence", "include { phase: TEST }"),
            "net.prototxt: net '' has no layers in phase TRAIN; look at the layers' include and exclude rules",
        ),
    ],
)
def test_a_net_without_layers(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(text)
    assert refusal(lambda: build_net(path, TRAIN)) == str(tmp_path / said)


@pytest.mark.parametrize(
    "text",
    [
        "layer { " * 100000,
        "layers { layer { " * 50000,
        "quux { " * 100000,
        "layer { " + "relu_param { " * 50000,
        "layer { blobs { shape { dim: [" + "[" * 100000,
        "}" * 100000,
        '"' * 100001,
        "\\" * 100000,
        "name: " * 50000,
        "\x00\x01\x02",
        "é" * 50000,
        "layer { name: " + "'a' " * 50000,
    ],
)
def test_nesting_and_noise_are_no_prototxt(tmp_path: Path, text: str) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(text)
    assert refusal(lambda: read_net(path)).startswith(f"{path}:1:")


def test_a_prototxt_beyond_any_size_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    for read in (read_net, read_solver):
        assert "1099511627776 bytes where a prototxt of at most" in refusal(partial(read, path))


def test_the_line_is_that_of_the_layer_among_others_of_its_name() -> None:
    text = """# layer { name: "data" }
layer { name: "data" type: "Input" top: "data" include { phase: TRAIN } }
layer {
  param { name: "weight" }
  name: 'data'  # layer {
  type: "Input" top: "data" include { phase: TEST }
}
layer: [{ type: "ReLU" bottom: "data" top: "a" }, { type: "ReLU" bottom: "quux }" top: "b" },
        { name: "last" }]
layers { layer { name: "old" type: "conv" } }
"""
    blocks = find_layers(text)
    assert [(block.line, block.name) for block in blocks] == [
        (2, "data"),
        (5, "data"),
        (8, ""),
        (8, ""),
        (9, "last"),
        (10, "old"),
    ]
    assert find_line(blocks, "data", 1) == 5
    assert find_line(blocks, "data", 2) == 5  # the net's `input` is the layer at 0
    assert find_line(blocks, "old") == 10
    assert find_line(blocks, "") is None
    with pytest.raises(LayerError, match="layer '': bottom 'quux }'") as fault:
        Net(parse_text(text.partition("layers {")[0], NetParameter, "n"), TEST)
    assert find_line(blocks, "", fault.value.place) == 8


def test_parameters_of_another_type_are_told_and_ignored_as_caffe_does(caplog: pytest.LogCaptureFixture) -> None:
    text = HEAD + layer("ReLU", "convolution_param { num_output: 2 } transform_param { scale: 2 }")
    text += layer("Deconvolution", "convolution_param { num_output: 2 kernel_size: 2 }", name="up", top="up")
    with caplog.at_level(logging.WARNING):
        Net(parse_text(text, NetParameter, "net"), TRAIN)
    assert caplog.messages == ["layer 'it': ReLU has no use for convolution_param: ignored, as in Caffe"]


def test_layers_of_one_name_without_weights_are_told(caplog: pytest.LogCaptureFixture) -> None:
    text = HEAD + layer("ReLU") + layer("ReLU", bottom="x", top="y")
    with caplog.at_level(logging.WARNING):
        assert Net(parse_text(text, NetParameter, "net"), TRAIN).outputs == ("label", "y")
    assert caplog.messages == ["layer 'it': another layer of the net has this name"]


# Solvers


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("base_lr: fast", ":1:10: base_lr fast where a number was expected"),
        ('tpye: "SGD"', ":1:1: 'tpye' is no field of SolverParameter; did you mean 'type'?"),
        ('type: "Adm"', ": solver type 'Adm' is unknown; did you mean 'Adam'?"),
        ('lr_policy: "fixd"', ": lr_policy 'fixd' is unknown; one of fixed, step"),
        ('lr_policy: "fixed" net: "a" train_net: "b"', ": net and train_net are given where one net was expected"),
        (
            'lr_policy: "fixed"\nnet_param {\n  layer { name: "it" type: "ReLU" bottom: "a" top: "b" } }',
            ":3: layer 'it': bottom 'a' is the top of no layer",
        ),
        ('lr_policy: "fixed" net_param { }', ": net '' has no layers"),
        ('lr_policy: "fixed" test_iter: 1 test_interval: -1', ": test_iter needs a test_interval of at least 1"),
        ("max_iter: 99999999999", ":1:11: max_iter 99999999999 where an integer from -2147483648"),
    ],
)
def test_a_solver_that_cannot_be_made(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "solver.prototxt"
    path.write_text(text)

    def make() -> None:
        with naming_solver(path):
            get_solver(read_solver(path))

    assert refusal(make).startswith(f"{path}{said}")


# Weights, means


WEIGHTS = HEAD + layer("InnerProduct", 'inner_product_param { num_output: 2 weight_filler { type: "xavier" } }')


def weights_net() -> Net:
    return Net(parse_text(WEIGHTS, NetParameter, "net"), TEST, seed=1)


def with_blob(**fields: Any) -> bytes:
    net = weights_net().to_proto()
    blob = next(layer for layer in net.layer if layer.name == "it").blobs[0]
    blob.Clear()
    blob.shape.dim.extend(fields.pop("dim", []))
    for name, value in fields.items():
        getattr(blob, name).extend(value)
    return net.SerializeToString()


def varint(value: int) -> bytes:
    return bytes([value & 0x7F | 0x80]) + varint(value >> 7) if value > 0x7F else bytes([value])


WIRE = {
    "nothing": b"",
    "nested groups": varint(1000 << 3 | 3) * 100_000,
    "ended groups": varint(1000 << 3 | 3) * 100_000 + varint(1000 << 3 | 4) * 100_000,
    "an endless length": varint(100 << 3 | 2) + varint(2**62),
    "a length of eleven bytes": varint(100 << 3 | 2) + b"\xff" * 10 + b"\x01",
    "a picture": b"\x89PNG\r\n\x1a\n" + bytes(1000),
    "zeros": bytes(1 << 20),
    "text": b"layer { name: 'x' }",
}


@pytest.mark.parametrize("case", WIRE)
def test_bytes_that_are_no_weights(tmp_path: Path, case: str) -> None:
    path = tmp_path / "x.caffemodel"
    path.write_bytes(WIRE[case])
    said = refusal(lambda: read_weights(path))
    assert said.startswith(f"{path}: ")
    assert "NetParameter" in said


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"dim": [2**31 - 1], "data": [1, 2]}, "2 values where shape (2147483647,) was declared; is the file damaged?"),
        ({"dim": [2**40, 2**40], "data": [1]}, "1 values where shape (1099511627776, 1099511627776) was declared"),
        ({"dim": [-2, -3], "data": [1] * 6}, "6 values where shape (-2, -3) was declared"),
        ({"dim": [1] * 10000, "data": [1]}, "1 values where a shape of 10000 axes was declared"),
        ({"dim": [2, 5], "double_data": [1] * 10}, "blob 0 has shape (2, 5) where the net has (2, 216)"),
    ],
)
def test_weights_of_absurd_shapes(tmp_path: Path, content: dict[str, Any], said: str) -> None:
    path = tmp_path / "x.caffemodel"
    path.write_bytes(with_blob(**content))
    net = weights_net()
    before = net.params["it"][0].clone()
    message = refusal(lambda: net.copy_from(path))
    assert message.startswith(f"{path}: layer 'it' blob 0")
    assert said in message
    assert torch.equal(net.params["it"][0], before)


def test_weights_that_are_no_numbers_are_caffes_too(tmp_path: Path) -> None:
    path = tmp_path / "x.caffemodel"
    path.write_bytes(with_blob(dim=[2, 216], double_data=[np.nan, 1e300] * 216))
    net = weights_net()
    net.copy_from(path)
    assert np.isnan(net.params["it"][0][0, 0].item())
    assert net.params["it"][0][0, 1].item() == np.inf


@pytest.mark.parametrize(
    ("size", "said"),
    [
        (3 << 30, "3221225472 bytes where a NetParameter of at most"),
        ((2 << 30) - 1, "no NetParameter, which begins with a field's number"),
    ],
)
def test_a_file_that_is_nothing_but_large_is_not_read(tmp_path: Path, size: int, said: str) -> None:
    path = tmp_path / "x.caffemodel"
    with path.open("wb") as file:
        file.truncate(size)
    assert said in refusal(lambda: read_weights(path))


def test_reading_weights_takes_little_more_than_their_size(tmp_path: Path) -> None:
    path = tmp_path / "x.caffemodel"
    message = NetParameter()
    message.layer.add(name="it").blobs.append(to_blobproto(np.zeros(8 << 20, np.float32)))
    write_binary(path, message)
    net = weights_net()
    said = refusal(lambda: net.copy_from(path), more_bytes=4 * path.stat().st_size)
    assert "layer 'it' has 1 blobs where the net has 2" in said


@pytest.mark.parametrize(
    "fields",
    [
        {"num": -1, "channels": 2**31 - 1, "height": 2**31 - 1, "width": 2},
        {"num": 1, "channels": 0, "height": 1, "width": 2},
        {"num": 1, "channels": 2, "height": 2, "width": 2},
        {"num": 2, "channels": 1, "height": 1, "width": 2},
        {"num": 3},
    ],
)
def test_a_mean_file_of_an_absurd_shape(tmp_path: Path, fields: dict[str, Any]) -> None:
    path = tmp_path / "mean.binaryproto"
    write_binary(path, BlobProto(**fields, data=[0.0] * (0 if fields.get("channels") == 0 else 4)))
    assert refusal(lambda: read_mean(path)).startswith(f"{path}: ")


# Snapshots


TRAINED = """
layer { name: "data" type: "DummyData" top: "data" top: "y" dummy_data_param {
  shape { dim: 2 dim: 3 } shape { dim: 2 dim: 2 } data_filler { type: "gaussian" } } }
layer { name: "cont" type: "DummyData" top: "cont" dummy_data_param { shape { dim: 2 dim: 2 }
  data_filler { type: "constant" value: 1 } } }
layer { name: "steps" type: "Reshape" bottom: "data" top: "steps" reshape_param { shape { dim: 2 dim: 1 dim: 3 } } }
layer { name: "ones" type: "Reshape" bottom: "cont" top: "ones" reshape_param { shape { dim: 2 dim: 2 } } }
layer { name: "part" type: "Slice" bottom: "ones" top: "one" top: "other" slice_param { axis: 1 } }
layer { name: "silent" type: "Silence" bottom: "other" }
layer { name: "rnn" type: "RNN" bottom: "steps" bottom: "one" top: "rnn" recurrent_param { num_output: 2
  weight_filler { type: "xavier" } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "rnn" bottom: "y" top: "loss" }
"""


def trained() -> Solver:
    text = f'type: "SGD" lr_policy: "fixed" base_lr: 0.01 momentum: 0.9 random_seed: 3 net_param {{ {TRAINED} }}'
    return get_solver(parse_text(text, SolverParameter, "solver"))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> snapshot.Snapshot:
    made = trained()
    made.step()
    return snapshot.save(made, str(tmp_path_factory.mktemp("snapshot") / "run"))


@pytest.fixture
def copied(saved: snapshot.Snapshot, tmp_path: Path) -> snapshot.Snapshot:
    copy = snapshot.Snapshot(str(tmp_path / "run"), saved.iteration)
    for source, target in ((saved.weights, copy.weights), (saved.state, copy.state), (saved.sidecar, copy.sidecar)):
        target.write_bytes(source.read_bytes())
    return copy


def test_the_snapshot_is_whole(copied: snapshot.Snapshot) -> None:
    assert snapshot.restore(trained(), copied.state)


def history(*shapes: tuple[int, ...]) -> list[BlobProto]:
    return [to_blobproto(np.zeros(shape)) for shape in shapes]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"iter": -5}, "iter -5, current_step 0 where at least 0 was expected; is the file damaged?"),
        ({"current_step": -1}, "iter 1, current_step -1 where"),
        ({"history": []}, "0 history blobs where the solver has 5"),
        ({"history": history(*[(1,)] * 5)}, "history 0 has shape (1,) where the solver has"),
        ({"history": [BlobProto(num=2**31 - 1, channels=2**31 - 1)] * 5}, "history 0: 0 values where shape"),
        ({"learned_net": "/nowhere/x.caffemodel"}, "its weights, '/nowhere/x.caffemodel', are not there"),
        ({"learned_net": "a\0b" * 1000}, "its weights, 'a\\x00b"),
        ({"learned_net": "/dev/zero"}, "its weights, '/dev/zero', are not there"),
    ],
)
def test_a_state_that_is_not_the_solvers(copied: snapshot.Snapshot, fields: dict[str, Any], said: str) -> None:
    state = SolverState.FromString(copied.state.read_bytes())
    for name, value in fields.items():
        state.ClearField(name)
        if name == "history":
            state.history.extend(value)
        else:
            setattr(state, name, value)
    write_binary(copied.state, state)
    if "learned_net" in fields:
        copied.weights.unlink()
    solver = trained()
    assert refusal(lambda: snapshot.restore(solver, copied.state)).startswith(f"{copied.state}: {said}")
    assert solver.iteration == 0


def test_a_state_of_a_step_beyond_all_is_gone_on_from_as_in_caffe(copied: snapshot.Snapshot) -> None:
    state = SolverState.FromString(copied.state.read_bytes())
    state.iter = state.current_step = 2**31 - 1
    write_binary(copied.state, state)
    copied.sidecar.unlink()
    solver = trained()
    snapshot.restore(solver, copied.state)
    assert solver.step() == pytest.approx(0.01)


HUGE = 10**30


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[" * 100_000,
        '{"a":' * 100_000,
        "[]",
        "3",
        '"x"',
        "null",
        "NaN",
        "\ud800",
        "{}",
        '{"form": 99}',
        {"losses": None},
        {"losses": ["x"]},
        {"losses": [[]]},
        {"nets": []},
        {"nets": [{}, {}]},
        {"nets": [3]},
        {"nets": None},
        {"generator": "x"},
        {"generator": 3},
        {"generator": "é"},
        {"generator": "AAAA"},
        {"layers": 3},
        {"layers": {"data": 3}},
        {"layers": {"data": {}}},
        {"layers": {"data": {"generator": "AAAA"}}},
        {"layers": {"rnn": {"hidden": 3}}},
        {"layers": {"rnn": {"hidden": [[[1.0, 2.0, 3.0]]]}}},
        {"layers": {"rnn": {"hidden": [[1.0]]}}},
        {"layers": {"rnn": {"hidden": [[["a", "b"]]]}}},
        {"layers": {"rnn": {"hidden": [[[HUGE, -HUGE]] * 2, [[0, 0]]]}}},
    ],
)
def test_a_sidecar_that_is_none(copied: snapshot.Snapshot, content: str | dict[str, Any]) -> None:
    if isinstance(content, dict):
        sidecar = json.loads(copied.sidecar.read_text())
        for place in (sidecar, sidecar["nets"][0]):
            place.update({name: value for name, value in content.items() if name in place})
        content = json.dumps(sidecar)
    copied.sidecar.write_text(content, encoding="utf-8", errors="surrogatepass")
    assert refusal(lambda: snapshot.restore(trained(), copied.state)).startswith(f"{copied.sidecar}: ")


def test_a_sidecar_beyond_any_size_is_not_read(copied: snapshot.Snapshot) -> None:
    with copied.sidecar.open("wb") as file:
        file.truncate(1 << 40)
    assert "1099511627776 bytes where at most" in refusal(lambda: snapshot.restore(trained(), copied.state))


# Commands


@pytest.mark.parametrize(
    "command",
    [
        "train -solver {}/solver.prototxt",
        "test -model {}/net.prototxt -weights {}/x.caffemodel",
        "time -model {}/net.prototxt",
    ],
)
def test_a_command_says_it_in_one_line(tmp_path: Path, command: str) -> None:
    (tmp_path / "net.prototxt").write_text(HEAD + layer("ReLU", bottom="dta"))
    (tmp_path / "solver.prototxt").write_text(f'net: "{tmp_path}/net.prototxt" lr_policy: "fixed" max_iter: 1')
    (tmp_path / "x.caffemodel").write_bytes(b"\x0a")
    run = subprocess.run(
        [sys.executable, "-m", "pipeline.caffe", *command.replace("{}", str(tmp_path)).split()],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1
    assert "Traceback" not in run.stderr
    assert run.stderr.splitlines()[-1].endswith(
        f"{tmp_path}/net.prototxt:4: layer 'it': bottom 'dta' {NOT_BEFORE}; did you mean 'data'?"
    )
