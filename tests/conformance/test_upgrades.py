"""Nets in older forms: the engine reads from each what real Caffe's upgrade tools make of it."""

import logging
import re
from pathlib import Path

import pytest
from caffe_root import CaffeRoot
from parity import Parity
from upgrading import (
    NAMES,
    UPGRADES,
    caffe_upgrade_binary,
    caffe_upgrade_text,
    legacy_net,
    recorded_upgrade,
)

from pipeline.caffe.proto.caffe_pb2 import V1LayerParameter
from pipeline.caffe.proto.files import PrototxtError, read_net, read_weights, write_binary
from pipeline.caffe.proto.upgrade_proto import V0_TYPES, upgrade_net

# Each is one that real Caffe refuses, or upgrades with an error in its log.
REFUSED = {
    "both forms of layers": 'layer { name: "a" type: "ReLU" } layers { name: "b" type: RELU }',
    "an unknown V0 type": 'layers { layer { name: "a" type: "warp" } }',
    "a field of another V0 type": 'layers { layer { name: "a" type: "relu" kernelsize: 3 } }',
    "a padding layer before a rectifier": 'input: "x" layers { layer { name: "a" type: "padding" pad: 1 } bottom: "x" '
    'top: "p" } layers { layer { name: "b" type: "relu" } bottom: "p" top: "p" }',
    "a padding layer with two tops": 'input: "x" layers { layer { name: "a" type: "padding" pad: 1 } bottom: "x" '
    'top: "p" top: "q" } layers { layer { name: "b" type: "conv" } bottom: "p" top: "c" }',
    "a convolution of two padded bottoms": 'input: "x" layers { layer { name: "a" type: "padding" pad: 1 } bottom: "x" '
    'top: "p" } layers { layer { name: "b" type: "conv" } bottom: "p" bottom: "p" top: "c" }',
    "an unknown V0 bottom": 'layers { layer { name: "a" type: "relu" } bottom: "x" top: "y" }',
}


@pytest.mark.parametrize("name", NAMES)
def test_a_net_is_upgraded_as_caffe_does(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, parity: Parity
) -> None:
    upgraded, forms = recorded_upgrade(name)
    with caplog.at_level(logging.INFO, logger="pipeline"):
        assert read_net(UPGRADES / f"{name}.prototxt") == upgraded
    assert [message.rsplit("deprecated ")[1] for message in caplog.messages] == forms
    write_binary(tmp_path / "old.caffemodel", legacy_net(name))
    assert read_weights(tmp_path / "old.caffemodel") == upgraded
    for form in ("prototxt of V0 and V1", "caffemodel of V0 and V1"):
        parity("File formats", form, "upgraded fields that differ", 0)


@pytest.mark.parametrize("name", NAMES)
def test_real_caffe_upgrades_as_recorded(name: str, caffe: CaffeRoot) -> None:
    assert caffe_upgrade_text(caffe, name) == (UPGRADES / f"recorded/{name}.prototxt").read_text()
    assert caffe_upgrade_binary(caffe, name) == recorded_upgrade(name)[0]


@pytest.mark.parametrize("name", NAMES)
def test_an_upgraded_net_is_upgraded(name: str, caplog: pytest.LogCaptureFixture) -> None:
    upgraded, _ = recorded_upgrade(name)
    again = recorded_upgrade(name)[0]
    with caplog.at_level(logging.INFO, logger="pipeline"):
        upgrade_net(again, name)
    assert again == upgraded
    assert not caplog.messages


def test_the_cases_have_every_type_and_every_field() -> None:
    layers = [layer for name in NAMES for layer in legacy_net(name).layers]
    assert {layer.type for layer in layers} == set(V1LayerParameter.LayerType.values())
    assert {layer.layer.type for layer in layers if layer.HasField("layer")} == {*V0_TYPES, "padding"}
    seen = {field.name for layer in layers for field, _ in layer.layer.ListFields()}
    never_upgraded = {"new_num", "new_channels"}  # of a type that V0 had lost already
    assert seen == {field.name for field in layers[0].layer.DESCRIPTOR.fields} - never_upgraded
    fields = {field.name for layer in layers for field, _ in layer.ListFields()}
    assert fields == {field.name for field in V1LayerParameter.DESCRIPTOR.fields}


@pytest.mark.parametrize("what", REFUSED)
def test_what_caffe_complains_of_is_refused(what: str, tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text("\n" + REFUSED[what])
    with pytest.raises(PrototxtError, match=r"net\.prototxt:2: layer '[ab]': "):
        read_net(path)


@pytest.mark.parametrize("what", REFUSED)
def test_real_caffe_complains_of_it(what: str, caffe: CaffeRoot) -> None:
    (caffe.folder / "old.prototxt").write_text(REFUSED[what])
    with pytest.raises(RuntimeError) as refusal:
        caffe.run("upgrade_net_proto_text", "old.prototxt", "new.prototxt")
    assert re.search(r"[EF]\d{4} .* upgrade_proto\.cpp", str(refusal.value))
