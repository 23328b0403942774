"""A training that starts from another net's weights."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save
from test_render import make_databases

from pipeline.base.errors import InputError
from pipeline.caffe.net import build_net
from pipeline.caffe.proto.caffe_pb2 import TEST
from pipeline.caffe.proto.files import read_net, read_solver, read_weights
from pipeline.classifier.fine_tuning import read_layer_blobs, starting_weights
from pipeline.stages.render import render
from pipeline.stages.train import train

LAYERS = """
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
        convolution_param { num_output: 4 kernel_size: 5 stride: 4 weight_filler { type: "xavier" } } }
layer { name: "bn1" type: "BatchNorm" bottom: "conv1" top: "conv1" }
layer { name: "fc1" type: "InnerProduct" bottom: "conv1" top: "fc1"
        inner_product_param { num_output: 8 weight_filler { type: "xavier" } } }
layer { name: "fc2" type: "InnerProduct" bottom: "fc1" top: "fc2"
        inner_product_param { num_output: 7 weight_filler { type: "xavier" } } }
"""
DATA = """layer {{ name: "data" type: "Data" top: "data" top: "label" include {{ phase: {phase} }}
           transform_param {{ crop_size: 42 }} data_param {{ backend: LMDB }} }}
"""
LOSS = """
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc2" bottom: "label" top: "loss" }
layer { name: "accuracy" type: "Accuracy" bottom: "fc2" bottom: "label" top: "accuracy" include { phase: TEST } }
"""
INPUT = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 1 dim: 42 dim: 42 } } }'
SOFTMAX = 'layer { name: "prob" type: "Softmax" bottom: "fc2" top: "prob" }'
RECIPE: dict[str, Any] = {"epochs": 2, "batch_size": 10, "steps": (0.6,), "snapshot": 5, "seed": 1}


@pytest.fixture
def net(tmp_path: Path) -> Path:
    folder = tmp_path / "little"
    folder.mkdir()
    name = 'name: "Little"\n'
    data = DATA.format(phase="TRAIN") + DATA.format(phase="TEST")
    (folder / "train_val.prototxt").write_text(name + data + LAYERS + LOSS)
    (folder / "deploy.prototxt").write_text(name + INPUT + LAYERS + SOFTMAX)
    (folder / "solver.prototxt").write_text('base_lr: 0.01 lr_policy: "fixed" display: 5 test_interval: 5\n')
    return folder


@pytest.fixture
def weights(net: Path, tmp_path: Path) -> Path:
    """Of the net with seven classes, as training leaves them."""
    built = build_net(net / "deploy.prototxt", TEST, seed=3)
    with torch.no_grad():
        built.params["bn1"][0].fill_(0.5)
        built.params["bn1"][1].fill_(2)
        built.params["bn1"][2].fill_(1)
    built.save(tmp_path / "seven.caffemodel")
    built.save_hdf5(tmp_path / "seven.caffemodel.h5")
    return tmp_path / "seven.caffemodel"


def blobs(path: Path) -> dict[str, list[np.ndarray]]:
    return {
        layer.name: [np.array(blob.data, np.float32) for blob in layer.blobs]
        for layer in read_weights(path).layer
        if layer.blobs
    }


@pytest.mark.parametrize("suffix", ["", ".h5"])
def test_other_classes_make_the_last_layer_anew_and_frozen_layers_stay(
    net: Path, weights: Path, tmp_path: Path, suffix: str
) -> None:
    databases = make_databases(tmp_path / "three", train=20, val=10, labels=("a", "b", "c"))
    run = tmp_path / "run"
    render(net, databases, run, **RECIPE, weights=Path(f"{weights}{suffix}"), freeze=["conv1", "bn1"])
    assert list(read_solver(run / "solver.prototxt").weights) == [f"{run}/start.caffemodel"]
    assert set(blobs(run / "start.caffemodel")) == {"conv1", "bn1", "fc1"}
    train(run / "solver.prototxt", "cpu", threads=1)
    before, after = blobs(weights), blobs(run / "final.caffemodel")
    for name in ("conv1", "bn1"):
        for old, new in zip(before[name], after[name], strict=True):
            np.testing.assert_array_equal(new, old)
    assert not np.array_equal(after["fc1"][0], before["fc1"][0])  # learns on, from where it was
    np.testing.assert_allclose(after["fc1"][0], before["fc1"][0], atol=0.5)
    assert after["fc2"][0].size == 3 * 8
    assert {layer.name for layer in read_net(run / "deploy.prototxt").layer} == {
        layer.name for layer in read_net(net / "deploy.prototxt").layer
    }


def test_as_many_classes_keep_the_last_layer(net: Path, weights: Path, tmp_path: Path) -> None:
    databases = make_databases(tmp_path / "seven", train=20, val=10)
    render(net, databases, tmp_path / "run", **RECIPE, weights=weights)
    start, given = blobs(tmp_path / "run/start.caffemodel"), blobs(weights)
    assert set(start) == set(given)
    np.testing.assert_array_equal(start["fc2"][0], given["fc2"][0])


def test_what_was_tuned_is_a_start_for_the_next(net: Path, weights: Path, tmp_path: Path) -> None:
    three = make_databases(tmp_path / "three", train=20, val=10, labels=("a", "b", "c"))
    render(net, three, tmp_path / "first", **RECIPE, weights=weights)
    train(tmp_path / "first/solver.prototxt", "cpu", threads=1)
    render(net, three, tmp_path / "second", **RECIPE, weights=tmp_path / "first/final.caffemodel")
    assert set(blobs(tmp_path / "second/start.caffemodel")) == {"conv1", "bn1", "fc1", "fc2"}


@pytest.mark.parametrize(
    ("change", "freeze", "message"),
    [
        (
            ("num_output: 8", "num_output: 9"),
            [],
            r"layer 'fc1' has blobs of shapes \(8, 400\), \(8,\) where the net has",
        ),
        (('name: "', 'name: "other_'), [], r"its layers \(conv1, bn1, fc1, fc2\) fit none of net 'other_Little'"),
        (None, ["conv2"], "freeze: conv2: no such layer; those with weights are conv1, bn1, fc1"),
        (None, ["fc2"], "freeze: fc2: the weights have none for it"),
        (None, ["loss"], "freeze: loss: the weights have none for it"),
    ],
)
def test_weights_that_do_not_fit_are_refused(  # noqa: PLR0917
    net: Path, weights: Path, tmp_path: Path, change: tuple[str, str] | None, freeze: list[str], message: str
) -> None:
    databases = make_databases(tmp_path / "three", train=20, val=10, labels=("a", "b", "c"))
    if change:
        for file in net.iterdir():
            file.write_text(file.read_text().replace(*change))
    with pytest.raises(InputError, match=message):
        render(net, databases, tmp_path / "run", **RECIPE, weights=weights, freeze=freeze)
    assert not (tmp_path / "run").exists()


def test_freezing_without_weights_and_damaged_weights_are_refused(net: Path, weights: Path, tmp_path: Path) -> None:
    databases = make_databases(tmp_path / "three", train=20, val=10, labels=("a", "b", "c"))
    with pytest.raises(InputError, match="freeze: conv1: nothing to keep without weights"):
        render(net, databases, tmp_path / "run", **RECIPE, freeze=["conv1"])
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(InputError, match=r"seven\.caffemodel: "):
        render(net, databases, tmp_path / "run", **RECIPE, weights=weights)
    shutil.rmtree(tmp_path / "run", ignore_errors=True)
    with pytest.raises(FileNotFoundError, match=r"none\.caffemodel"):
        render(net, databases, tmp_path / "run", **RECIPE, weights=tmp_path / "none.caffemodel")


def test_the_shipped_model_without_a_caffemodel_is_a_start() -> None:
    model = Path(__file__).parents[2] / "pipeline/weights/accurate"
    deploy = read_net(model / "deploy.prototxt")
    taken = {layer.name for layer in starting_weights(model / "weights.safetensors", deploy, "scores").layer}
    assert taken == build_net(model / "deploy.prototxt", TEST).params.keys()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "cut.safetensors",
            save({"conv1.0": np.zeros((2, 3), np.float16)})[:-4],
            r"cut\.safetensors: .*; export the model",
        ),
        (
            "other.safetensors",
            save({"conv1.1": np.zeros(2, np.float32)}),
            "layer 'conv1' has the tensors 1, where conv1.0",
        ),
        ("model.onnx", b"", "an ONNX file has no weights to start from; give the model's folder instead"),
    ],
)
def test_files_without_a_nets_weights_are_refused(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_layer_blobs(tmp_path / name)
