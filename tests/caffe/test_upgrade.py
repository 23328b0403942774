"""Nets in older forms: run as the same net in the form of today, upgraded once, and refused with a name and a line."""

from collections.abc import Collection
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import torch
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.caffe.layers import LAYERS
from pipeline.caffe.net import Net, build_net
from pipeline.caffe.proto.caffe_pb2 import TEST, LayerParameter, NetParameter, V0LayerParameter, V1LayerParameter
from pipeline.caffe.proto.files import (
    BinaryError,
    PrototxtError,
    parse_text,
    read_net,
    read_solver,
    read_weights,
    write_binary,
)
from pipeline.caffe.proto.upgrade_proto import upgrade_net
from pipeline.caffe.solver import get_solver

FILLER = 'weight_filler { type: "xavier" }'
MODERN = f"""
layer {{ name: "image" type: "Input" top: "image" input_param {{ shape {{ dim: 2 dim: 1 dim: 5 dim: 7 }} }} }}
layer {{ name: "conv" type: "Convolution" bottom: "image" top: "conv"
        convolution_param {{ num_output: 3 kernel_size: 3 pad: 1 stride: 2 {FILLER} }} }}
layer {{ name: "relu" type: "ReLU" bottom: "conv" top: "conv" }}
layer {{ name: "fc" type: "InnerProduct" bottom: "conv" top: "fc" inner_product_param {{ num_output: 4 {FILLER} }} }}
layer {{ name: "prob" type: "Softmax" bottom: "fc" top: "prob" }}
"""
V1 = f"""
input: "image" input_dim: 2 input_dim: 1 input_dim: 5 input_dim: 7
layers {{ name: "conv" type: CONVOLUTION bottom: "image" top: "conv"
         convolution_param {{ num_output: 3 kernel_size: 3 pad: 1 stride: 2 {FILLER} }} }}
layers {{ name: "relu" type: RELU bottom: "conv" top: "conv" }}
layers {{ name: "fc" type: INNER_PRODUCT bottom: "conv" top: "fc" inner_product_param {{ num_output: 4 {FILLER} }} }}
layers {{ name: "prob" type: SOFTMAX bottom: "fc" top: "prob" }}
"""
V0 = f"""
input: "image" input_dim: 2 input_dim: 1 input_dim: 5 input_dim: 7
layers {{ layer {{ name: "pad" type: "padding" pad: 1 }} bottom: "image" top: "padded" }}
layers {{ layer {{ name: "conv" type: "conv" num_output: 3 kernelsize: 3 stride: 2 {FILLER} }}
         bottom: "padded" top: "conv" }}
layers {{ layer {{ name: "relu" type: "relu" }} bottom: "conv" top: "conv" }}
layers {{ layer {{ name: "fc" type: "innerproduct" num_output: 4 {FILLER} }} bottom: "conv" top: "fc" }}
layers {{ layer {{ name: "prob" type: "softmax" }} bottom: "fc" top: "prob" }}
"""


def net(text: str) -> NetParameter:
    return parse_text(text, NetParameter, "net")


def legacy_weights(form: str, modern: NetParameter) -> NetParameter:
    """Weights as Caffe wrote them in the years of V0 and V1: each blob of four axes."""
    weights = NetParameter(name="old", input=["image"])
    for layer in modern.layer:
        if layer.blobs:
            added = weights.layers.add()
            inner = added.layer if form == "V0" else added
            inner.name = layer.name
            if form == "V0":
                added.layer.type = {"Convolution": "conv", "InnerProduct": "innerproduct"}[layer.type]
            inner.blobs.extend(layer.blobs)
            for blob in inner.blobs:
                shape = [1] * (4 - len(blob.shape.dim)) + list(blob.shape.dim)
                blob.num, blob.channels, blob.height, blob.width = shape
                blob.ClearField("shape")
    return weights


@pytest.mark.parametrize(("form", "text"), [("V0", V0), ("V1", V1)])
def test_a_legacy_net_with_its_weights_answers_as_todays(tmp_path: Path, form: str, text: str) -> None:
    modern = Net(net(MODERN), TEST, seed=1)
    write_binary(tmp_path / "old.caffemodel", legacy_weights(form, modern.to_proto()))
    (tmp_path / "old.prototxt").write_text(text)
    legacy = build_net(tmp_path / "old.prototxt", TEST, seed=2)
    legacy.copy_from(tmp_path / "old.caffemodel")
    image = np.random.default_rng(0).standard_normal((2, 1, 5, 7), dtype=np.float32)
    probabilities = legacy.forward(image=image)["prob"]
    assert probabilities.std() > 0
    assert torch.equal(probabilities, modern.forward(image=image)["prob"])


def test_a_net_inside_a_solver_is_upgraded(tmp_path: Path) -> None:
    path = tmp_path / "solver.prototxt"
    path.write_text(f"""
        base_lr: 0.1 lr_policy: "fixed" test_iter: 1 test_interval: 1
        train_net_param {{ {V1}
            layers {{ name: "loss" type: EUCLIDEAN_LOSS bottom: "fc" bottom: "prob" top: "loss" }} }}
        test_net_param {{ {V1} }}""")
    solver = get_solver(read_solver(path))
    assert [learnable.layer for learnable in solver.net.learnable] == ["conv", "conv", "fc", "fc"]
    assert list(solver.test_nets[0].params) == ["conv", "fc"]


def test_blobs_learn_and_are_shared_as_v1s_lists_say() -> None:
    legacy = net(
        'layers { name: "a" type: CONVOLUTION blobs_lr: 1 blobs_lr: 2 weight_decay: 0.5 param: "w" param: "b" '
        'param: "more" blob_share_mode: PERMISSIVE }'
    )
    upgrade_net(legacy, "net")
    assert list(legacy.layer[0].param) == list(
        net(
            'layer { param { name: "w" share_mode: PERMISSIVE lr_mult: 1 decay_mult: 0.5 } '
            'param { name: "b" lr_mult: 2 } param { name: "more" } }'
        )
        .layer[0]
        .param
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('layer { name: "a" }\nlayers { name: "b" type: RELU }', "net.prototxt:2: layer 'b': 'layers', the form"),
        ('layer { name: "a" }\nlayers { layer { name: "b" } }', "net.prototxt:2: layer 'b': 'layers', the form"),
        ('\nlayers { layer { name: "b" type: "warp" } }', "net.prototxt:2: layer 'b': type 'warp' is none of V0's"),
        (
            '\nlayers { name: "b" type: RELU }\nlayers { layer { name: "a" type: "relu" } }',
            "net.prototxt:2: layer 'b': type '' is none of V0's",
        ),
        ('\nlayers { layer { name: "b" type: "relu" new_num: 2 } }', "net.prototxt:2: layer 'b': 'new_num' is no"),
        (
            '\nlayers { layer { name: "b" type: "relu" } include { phase: TEST } }',
            "net.prototxt:2: layer 'b': 'include' stands beside",
        ),
        ('debug_info: true layers { layer { name: "b" type: "relu" } }', "net.prototxt: a net of V0 .* 'debug_info'"),
        ('input: "x" input_dim: 1 input_dim: 2', "net.prototxt: 2 input_dim for 1 input; 4 for each"),
        ('input: "x" input: "y" input_shape { dim: 1 }', "net.prototxt: 1 input_shape for 2 input; one for each"),
        ('input: "x" input_shape { dim: 1 } input_shape { dim: 1 }', "net.prototxt: 2 input_shape for 1 input"),
    ],
)
def test_what_cannot_be_upgraded_is_named_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(text)
    with pytest.raises(PrototxtError, match=said):
        read_net(path)


def test_weights_that_cannot_be_upgraded_are_named(tmp_path: Path) -> None:
    write_binary(tmp_path / "x.caffemodel", net('layer { name: "a" } layers { name: "b" }'))
    with pytest.raises(BinaryError, match=r"x\.caffemodel: layer 'b': 'layers'"):
        read_weights(tmp_path / "x.caffemodel")


NAME = st.sampled_from(["a", "b", "c", "d"])
SCALARS = {
    1: st.floats(width=32, allow_nan=False),
    2: st.floats(width=32, allow_nan=False),
    3: st.integers(0, 9),
    5: st.integers(0, 9),
    8: st.booleans(),
    9: NAME,
    13: st.integers(0, 9),
}  # by the field's type; what is left are messages, 11, and enums, 14
M = TypeVar("M", bound=Message)


@st.composite
def messages(draw: st.DrawFn, message_type: type[M], avoid: Collection[str] = ()) -> M:
    """A message of some of its type's fields, at any depth, without those named."""
    message = message_type()
    fields = [field for field in message_type.DESCRIPTOR.fields if field.name not in avoid]
    for field in draw(st.lists(st.sampled_from(fields), max_size=4, unique_by=lambda field: field.name)):
        if field.message_type is not None:
            # protobuf's stubs name two classes Descriptor, and this function takes the other one.
            inner = messages(GetMessageClass(field.message_type))  # type: ignore[arg-type]
            if field.is_repeated:
                getattr(message, field.name).extend(draw(st.lists(inner, max_size=3)))
            else:
                getattr(message, field.name).CopyFrom(draw(inner))
            continue
        scalar = (
            SCALARS[field.type]
            if field.enum_type is None
            else st.sampled_from([value.number for value in field.enum_type.values])
        )
        if field.is_repeated:
            getattr(message, field.name).extend(draw(st.lists(scalar, max_size=4)))
        else:
            setattr(message, field.name, draw(scalar))
    return message


DRAWN_APART = {"layer", "layers", "input", "input_dim", "input_shape"}
# Some of V0's types, with the fields that they may have beside those of all.
V0_TYPES = {
    "conv": {"num_output", "biasterm", "weight_filler", "bias_filler", "pad", "kernelsize", "group", "stride"},
    "pool": {"pool", "pad", "kernelsize", "stride"},
    "data": {"source", "batchsize", "rand_skip"},
    "lrn": {"local_size", "alpha", "beta", "k"},
    "relu": set(),
}
V0_EVERY_TYPE = {"name", "scale", "meanfile", "cropsize", "mirror", "blobs", "blobs_lr", "weight_decay"}


@st.composite
def v0_nets(draw: st.DrawFn) -> NetParameter:
    """A chain of V0 layers, with padding layers before some that may have one."""
    made = NetParameter(input=["a"], input_dim=[2, 3, 5, 7])
    bottom = "a"
    for old_type in draw(st.lists(st.sampled_from(sorted(V0_TYPES)), max_size=5)):
        if old_type in ("conv", "pool") and draw(st.booleans()):
            padding = made.layers.add(bottom=[bottom], top=[draw(NAME)])
            padding.layer.type, padding.layer.pad = "padding", draw(st.integers(0, 3))
            bottom = padding.top[0]
        added = made.layers.add(bottom=[bottom], top=[draw(NAME)])
        fields = {field.name for field in V0LayerParameter.DESCRIPTOR.fields}
        added.layer.CopyFrom(draw(messages(V0LayerParameter, fields - V0_TYPES[old_type] - V0_EVERY_TYPE)))
        added.layer.type = old_type
        bottom = added.top[0]
    return made


@st.composite
def v1_nets(draw: st.DrawFn) -> NetParameter:
    """A net of any V1 layers, with inputs that have dimensions or not."""
    made = draw(messages(NetParameter, DRAWN_APART))
    made.layers.extend(draw(st.lists(messages(V1LayerParameter, {"layer"}), max_size=4)))
    made.input.extend(draw(st.lists(NAME, max_size=2)))
    made.input_dim.extend([3] * draw(st.sampled_from([0, 4 * len(made.input)])))
    return made


@st.composite
def modern_nets(draw: st.DrawFn) -> NetParameter:
    """A net of any layers of today but BatchNorm's, of which some are changed."""
    made = draw(messages(NetParameter, DRAWN_APART))
    made.layer.extend(draw(st.lists(messages(LayerParameter), max_size=4)))
    for layer in made.layer:
        layer.type = draw(st.sampled_from([name for name in LAYERS if name != "BatchNorm"]))
    return made


def copy(source: NetParameter) -> NetParameter:
    made = NetParameter()
    made.CopyFrom(source)
    return made


@settings(max_examples=150, deadline=None)
@given(modern_nets())
def test_a_net_of_today_is_left_as_it_is(modern: NetParameter) -> None:
    upgraded = copy(modern)
    upgrade_net(upgraded, "net")
    assert upgraded == modern


@settings(max_examples=150, deadline=None)
@given(v1_nets())
def test_a_v1_net_keeps_what_it_has_and_is_upgraded_once(legacy: NetParameter) -> None:
    upgraded = copy(legacy)
    upgrade_net(upgraded, "net")
    assert not upgraded.layers
    assert not upgraded.input
    layers = upgraded.layer[1:] if legacy.input_dim else upgraded.layer
    for old, new in zip(legacy.layers, layers, strict=True):
        for field in ("name", "bottom", "top", "blobs", "loss_weight", "include", "exclude", "convolution_param"):
            assert getattr(old, field) == getattr(new, field)
        assert new.type in {"", *LAYERS, "HDF5Data", "HDF5Output", "ImageData", "WindowData"}
        assert len(new.param) == max(len(old.param), len(old.blobs_lr), len(old.weight_decay), len(old.blob_share_mode))
    again = copy(upgraded)
    upgrade_net(again, "net")
    assert again == upgraded


@settings(max_examples=150, deadline=None)
@given(v0_nets())
def test_a_v0_net_loses_its_padding_layers_alone(legacy: NetParameter) -> None:
    upgraded = copy(legacy)
    upgrade_net(upgraded, "net")
    layers = iter(upgraded.layer[1:])
    for before, old in zip([None, *legacy.layers], legacy.layers, strict=False):
        if old.layer.type == "padding":
            continue
        new = next(layers)
        padding = before if before is not None and before.layer.type == "padding" else None
        assert (old.layer.name, list(old.layer.blobs), old.top[0]) == (new.name, list(new.blobs), new.top[0])
        assert new.bottom[0] == (old if padding is None else padding).bottom[0]
        if padding is not None:
            pad = new.convolution_param.pad[0] if old.layer.type == "conv" else new.pooling_param.pad
            assert pad == padding.layer.pad
    assert next(layers, None) is None
    again = copy(upgraded)
    upgrade_net(again, "net")
    assert again == upgraded
