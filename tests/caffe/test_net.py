"""Nets: chosen by phase, split as Caffe splits, and refused with a name and a line."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.caffe.fillers import FILLERS, fill
from pipeline.caffe.insert_splits import filter_layers, insert_splits
from pipeline.caffe.net import Net, build_net
from pipeline.caffe.proto.caffe_pb2 import TEST, TRAIN, FillerParameter, NetParameter, Phase
from pipeline.caffe.proto.files import PrototxtError, parse_text

INPUT = 'layer { name: "in" type: "Input" top: "in" input_param { shape { dim: 2 dim: 3 } } }\n'


def net(text: str) -> NetParameter:
    return parse_text(text, NetParameter, "net")


def inner(name: str, bottom: str, top: str, outputs: int, more: str = "") -> str:
    filler = f'num_output: {outputs} weight_filler {{ type: "xavier" }}'
    return (
        f'layer {{ name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{top}" {more} '
        f"inner_product_param {{ {filler} }} }}\n"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (INPUT + 'layer { name: "odd"\n type: "Convolve" bottom: "in" top: "a" }', ":2: layer 'odd': type 'Convolve'"),
        (INPUT + inner("fc", "nowhere", "a", 4), ":2: layer 'fc': bottom 'nowhere'"),
        (INPUT + inner("a", "in", "x", 4) + inner("b", "in", "x", 4), ":3: layer 'b': top 'x' .*'a'"),
        (INPUT + inner("fc", "in", "x", 0), ":2: layer 'fc': num_output 0"),
        (INPUT + 'layer { name: "r" type: "ReLU" bottom: "in" bottom: "in" top: "x" }', ":2: layer 'r': 2 bottoms"),
        (INPUT + inner("fc", "in", "x", 2, "loss_weight: 1 loss_weight: 1"), ":2: layer 'fc': 2 loss_weight"),
        (INPUT + inner("fc", "in", "x", 2, "param {} param {} param {}"), ":2: layer 'fc': 3 param"),
        (
            INPUT + 'layer { name: "fc" type: "InnerProduct" bottom: "in" top: "x" '
            'inner_product_param { num_output: 1 weight_filler { type: "he" } } }',
            ":2: layer 'fc': filler 'he' is unknown",
        ),
    ],
)
def test_a_net_that_cannot_be_built_names_layer_and_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(text)
    with pytest.raises(PrototxtError, match=said):
        build_net(path, TEST)


def test_layers_are_chosen_by_phase_level_and_stage() -> None:
    rules = {
        "always": "",
        "train": "include { phase: TRAIN }",
        "not_train": "exclude { phase: TRAIN }",
        "deep": "include { min_level: 2 }",
        "staged": 'include { phase: TRAIN stage: "a" not_stage: "b" }',
        "either": 'include { phase: TEST } include { stage: "a" }',
    }
    text = "".join(f'layer {{ name: "{name}" type: "Silence" {rule} }}\n' for name, rule in rules.items())

    def chosen(phase: Phase, level: int, stages: tuple[str, ...]) -> list[str]:
        return [layer.name for layer in filter_layers(net(text), phase, level, stages).layer]

    assert chosen(TRAIN, 0, ()) == ["always", "train"]
    assert chosen(TEST, 2, ()) == ["always", "not_train", "deep", "either"]
    assert chosen(TRAIN, 0, ("a",)) == ["always", "train", "staged", "either"]
    assert chosen(TRAIN, 0, ("a", "b")) == ["always", "train", "either"]


def test_a_top_used_twice_is_split_as_caffe_names_it() -> None:
    text = (
        INPUT
        + inner("fc", "in", "x", 2, "loss_weight: 0.5")
        + "".join(f'layer {{ name: "s{i}" type: "Softmax" bottom: "x" top: "y{i}" }}\n' for i in range(2))
    )
    split = [layer for _, layer in insert_splits(net(text))]
    assert [layer.name for layer in split] == ["in", "fc", "x_fc_0_split", "s0", "s1"]
    splitter = split[2]
    assert list(splitter.top) == [f"x_fc_0_split_{i}" for i in range(3)]  # the loss itself is the first use
    assert list(splitter.loss_weight) == [0.5, 0, 0]
    assert not split[1].loss_weight
    assert [split[i].bottom[0] for i in (3, 4)] == ["x_fc_0_split_1", "x_fc_0_split_2"]


def test_layers_share_a_blob_by_the_name_of_its_param() -> None:
    shared = 'param { name: "w" } param { name: "b" }'
    built = Net(net(INPUT + inner("one", "in", "x", 3, shared) + inner("two", "x", "y", 3, shared)), TRAIN, seed=1)
    assert built.params["one"][0] is built.params["two"][0]
    assert len(built.learnable) == 2
    with pytest.raises(PrototxtError, match=r"layer 'two': param 'w' has shape \(4, 3\) where layer 'one'.*\(3, 3\)"):
        Net(net(INPUT + inner("one", "in", "x", 3, shared) + inner("two", "x", "y", 4, shared)), TRAIN)


def test_inputs_that_are_missing_or_unknown_are_named() -> None:
    built = Net(net(INPUT + inner("fc", "in", "x", 2)), TEST)
    with pytest.raises(PrototxtError, match="given the inputs out where in were expected"):
        built.forward(out=np.zeros((2, 3), np.float32))


def test_one_seed_gives_one_net() -> None:
    def weights(seed: int) -> torch.Tensor:
        return Net(net(INPUT + inner("fc", "in", "x", 2)), TRAIN, seed=seed).params["fc"][0]

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


# Mean and variance of each filler's values for a (400, 500) blob: fan_in 500, fan_out 400.
@pytest.mark.parametrize(
    ("fields", "mean", "variance"),
    [
        ({"type": "constant", "value": 3}, 3, 0),
        ({"type": "uniform", "min": -1, "max": 3}, 1, 16 / 12),
        ({"type": "gaussian", "mean": 2, "std": 3}, 2, 9),
        ({"type": "gaussian", "std": 3, "sparse": 100}, 0, 9 / 4),
        ({"type": "positive_unitball"}, 1 / 500, 1 / 3 / 500**2),
        ({"type": "xavier"}, 0, 1 / 500),
        ({"type": "xavier", "variance_norm": FillerParameter.FAN_OUT}, 0, 1 / 400),
        ({"type": "msra", "variance_norm": FillerParameter.AVERAGE}, 0, 2 / 450),
    ],
)
def test_fillers_draw_from_their_distribution(fields: dict, mean: float, variance: float) -> None:
    blob = fill((400, 500), FillerParameter(**fields), torch.Generator().manual_seed(1)).double()
    assert blob.mean().item() == pytest.approx(mean, abs=0.02 * (variance**0.5 + 1e-9))
    assert blob.var().item() == pytest.approx(variance, rel=0.02)


def test_the_bilinear_filler_is_caffes() -> None:
    # What real Caffe's filler gives for 3x3 and 4x4.
    generator = torch.Generator()
    three = fill((2, 1, 3, 3), FillerParameter(type="bilinear"), generator)
    four = fill((1, 2, 4, 4), FillerParameter(type="bilinear"), generator)
    assert torch.equal(three[1, 0, 0], torch.tensor([0.25, 0.5, 0.25]))
    assert torch.equal(four[0, 1, 1], torch.tensor([0.1875, 0.5625, 0.5625, 0.1875]))
    assert set(FILLERS) == {"constant", "uniform", "gaussian", "positive_unitball", "xavier", "msra", "bilinear"}
