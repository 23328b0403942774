"""draw_net: what stands in a drawing, in which forms, and what is refused."""

import re
import shutil
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from helpers.pictures import read_picture
from helpers.run_tool import run_tool

from pipeline.base.errors import InputError
from pipeline.caffe import draw
from pipeline.caffe.draw import draw_net, draw_net_to_file, to_dot
from pipeline.caffe.proto.caffe_pb2 import TEST, TRAIN, NetParameter, Phase
from pipeline.caffe.proto.files import parse_text

NET = """
name: "N<e>t"
layer { name: "train" type: "DummyData" top: "data" top: "label" include { phase: TRAIN }
        dummy_data_param { shape { dim: 8 dim: 2 dim: 9 dim: 7 } shape { dim: 8 } } }
layer { name: "test" type: "DummyData" top: "data" top: "label" exclude { phase: TRAIN }
        dummy_data_param { shape { dim: 4 dim: 2 dim: 9 dim: 7 } shape { dim: 4 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" param { name: "w" lr_mult: 2 } param { lr_mult: 3 }
        convolution_param { num_output: 5 kernel_h: 3 kernel_w: 1 pad: 1 stride: 2 bias_term: true } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" relu_param { negative_slope: 0.1 } }
layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool" pooling_param { pool: AVE global_pooling: true } }
layer { name: "tanh" type: "TanH" bottom: "conv" top: "conv" }
layer { name: "fc" type: "InnerProduct" bottom: "pool" bottom: "conv" top: "fc" inner_product_param { num_output: 3 } }
layer { name: "hit" type: "Accuracy" bottom: "fc" bottom: "label" top: "hit" include { phase: TEST } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" loss_weight: 0.5 }
"""


@pytest.fixture
def net(tmp_path: Path) -> Path:
    """The net's prototxt; InnerProduct takes one bottom, which a drawing need not mind."""
    (tmp_path / "net.prototxt").write_text(NET)
    return tmp_path / "net.prototxt"


def drawing(
    phase: Phase | None, *, display_lrm: bool = False
) -> tuple[dict[str, list[str]], set[tuple[str, str, str]]]:
    """Of each box the texts, by its first; and the arrows, with what they are called."""
    text = "".join(to_dot(parse_text(NET, NetParameter, "net"), "TB", phase, display_lrm=display_lrm))
    boxes = {}
    for number, label in re.findall(r"^  (n\d+) \[.*label=<(.*)>\]$", text, re.MULTILINE):
        boxes[number] = [found.strip() for found in re.findall(r">([^<>]+)<", label)]
    arrows = {
        (boxes[source][0], boxes[target][0], name)
        for source, target, name in re.findall(r'(n\d+) -> (n\d+)(?: \[label=" (.*) "\])?', text)
    }
    return {texts[0]: texts for texts in boxes.values()}, arrows


def test_a_box_tells_of_its_layer() -> None:
    boxes, arrows = drawing(TRAIN)
    assert [*boxes] == ["train", "conv", "pool", "tanh", "fc", "loss"]
    assert boxes["train"] == ["train", "DummyData", "data  8 × 2 × 9 × 7", "label  8"]
    assert boxes["conv"] == [
        "conv",
        "Convolution",
        "num output 5, bias term true",
        "pad 1, stride 2, kernel h 3",
        "kernel w 1, shared as w",
        "relu  ReLU, negative slope 0.1",
        "8 × 5 × 5 × 5",
    ]
    assert boxes["pool"][2:] == ["pool AVE, global pooling true", "8 × 5 × 1 × 1"]
    assert boxes["loss"][2:] == ["loss weight 0.5"]
    # tanh works in place as well, but pool has read what was there before.
    assert arrows == {
        ("train", "conv", "data"),
        ("conv", "pool", ""),
        ("conv", "tanh", ""),
        ("pool", "fc", ""),
        ("tanh", "fc", ""),
        ("fc", "loss", ""),
        ("train", "loss", "label"),
    }


def test_learning_rate_multipliers_are_told_if_asked_for() -> None:
    assert "lr mult 2, 3" not in ", ".join(drawing(TEST)[0]["conv"])
    assert "lr mult 2, 3" in ", ".join(drawing(TEST, display_lrm=True)[0]["conv"])


def test_all_phases_are_joined_where_both_layers_are_in_one() -> None:
    boxes, arrows = drawing(None)
    assert boxes["train"][1] == "DummyData, TRAIN"
    assert boxes["test"][1] == "DummyData, TEST"
    assert boxes["hit"][1] == "Accuracy, TEST"
    assert boxes["loss"][1] == "SoftmaxWithLoss"
    assert {source for source, target, _ in arrows if target == "hit"} == {"test", "fc"}
    assert {source for source, target, _ in arrows if target == "conv"} == {"test", "train"}


def test_blobs_that_no_layer_makes_are_drawn_by_name() -> None:
    net = parse_text('layer { name: "a" type: "Nose" bottom: "x" bottom: "y" top: "z" }', NetParameter, "net")
    text = "".join(to_dot(net, "TB"))
    assert re.findall(r'"(.*)" -> n0 \[style=dashed\]', text) == ["blob x", "blob y"]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "net 'N' has no layers$"),
        ('layer { name: "a" type: "ReLU" include { phase: TRAIN } }', "net 'N' has no layers in phase TEST$"),
    ],
)
def test_a_net_without_layers_is_refused(text: str, error: str) -> None:
    with pytest.raises(InputError, match=error):
        "".join(to_dot(parse_text(f'name: "N" {text}', NetParameter, "net"), "TB", TEST if text else None))


def test_unknown_shapes_are_told_and_left_out(caplog: pytest.LogCaptureFixture) -> None:
    boxes, _ = drawing(TRAIN)
    assert "fc" in boxes
    assert caplog.messages == [
        "shapes are not drawn from layer 'fc' on: layer 'fc': 2 bottoms where InnerProduct takes 1"
    ]


@pytest.mark.skipif(shutil.which("dot") is None, reason="no program dot on this machine: apt-get install graphviz")
def test_pictures_have_the_form_of_their_suffix(net: Path) -> None:
    for suffix in ("png", "svg", "pdf", "dot"):
        run_tool("draw_net", net, net.with_suffix(f".{suffix}"), "--rankdir", "TB", "-phase=TEST")
    image = read_picture(net.with_suffix(".png"))
    assert image.shape[0] > image.shape[1] > 100  # from top to bottom
    assert len({tuple(pixel) for pixel in image[::4, ::4].reshape(-1, 3)}) > 20
    texts = [element.text for element in ET.parse(net.with_suffix(".svg")).iter() if element.text]
    assert {"N<e>t", "conv", "8 × 5 × 5 × 5".replace("8", "4")} <= set(texts)
    assert net.with_suffix(".pdf").read_bytes().startswith(b"%PDF")
    assert net.with_suffix(".dot").read_text().startswith("digraph")


def test_without_the_program_the_error_tells_where_it_is(
    net: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match=r"program dot.*apt-get install graphviz.*write a \.dot file"):
        run_tool("draw_net", net, tmp_path / "net.png")
    assert [path.name for path in tmp_path.iterdir()] == ["net.prototxt"]
    run_tool("draw_net", net, tmp_path / "net.dot")


def test_pycaffes_functions_draw(tmp_path: Path) -> None:
    net = parse_text(NET, NetParameter, "net")
    draw_net_to_file(net, f"{tmp_path}/net.gv", "LR", TRAIN, True)
    assert (tmp_path / "net.gv").read_bytes() == draw_net(net, "LR", "raw", phase=TRAIN, display_lrm=True)


@pytest.mark.parametrize(
    ("flags", "image", "error"),
    [
        ([], "net.gif", "'gif' is no form that nets are drawn in; svg, png"),
        ([], "net", "'' is no form"),
        (["--rankdir=UP"], "net.dot", "rankdir 'UP' where LR, TB, RL, BT was expected"),
        (["--phase", "VAL"], "net.dot", "phase 'VAL' where TRAIN, TEST, ALL was expected"),
    ],
)
def test_bad_input_is_an_error_and_leaves_nothing(
    net: Path, tmp_path: Path, flags: list[str], image: str, error: str
) -> None:
    with pytest.raises(InputError, match=error):
        run_tool("draw_net", *flags, net, tmp_path / image)
    assert [path.name for path in tmp_path.iterdir()] == ["net.prototxt"]


def test_names_that_are_no_html_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = '<b>&amp;"\\n\x01é'
    net = NetParameter(name=name)
    net.layer.add(name=name, type=name, top=[name, "b"])
    net.layer.add(name="next", type="ReLU", bottom=[name], top=["c"])
    text = "".join(to_dot(net, "LR"))
    assert "&lt;b&gt;&amp;amp;&quot;\\n�é" in text
    if shutil.which("dot"):
        assert b"&lt;b&gt;&amp;amp;" in draw_net(net, "LR", "svg")
    monkeypatch.setattr(draw, "MAX_LAYERS", 1)
    with pytest.raises(InputError, match="has 2 layers; up to 1 can be drawn"):
        "".join(to_dot(net, "LR"))
