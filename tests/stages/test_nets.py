"""Every net for faces under prototxt/: it renders, its files agree, it has the size that its pages give."""

import re
from pathlib import Path

import pytest
import torch
import yaml
from helpers.small_set import noise, write_csv

from pipeline.caffe.net import build_net
from pipeline.caffe.proto.caffe_pb2 import TEST, TRAIN
from pipeline.caffe.proto.files import read_net, read_solver
from pipeline.caffe.tools.summary import LayerSize, layer_sizes
from pipeline.stages.extract import extract
from pipeline.stages.lmdb import lmdb
from pipeline.stages.mean import mean
from pipeline.stages.render import render

PROTOTXT = Path(__file__).parents[2] / "prototxt"
NETS = sorted(path.parent.name for path in PROTOTXT.glob("*/train_val.prototxt"))
WITH_PAGE = [name for name in NETS if (PROTOTXT / name / "README.md").exists()]
SIZES: dict[str, list[LayerSize]] = {}


@pytest.fixture(scope="module")
def databases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_csv(folder / "fer2013.csv", noise(20))
    extract(folder / "fer2013.csv", folder / "images")
    lmdb(folder / "images/manifest.csv", folder / "databases", "kaggle", seed=1)
    mean(folder / "databases/train_lmdb", folder / "databases/mean.binaryproto")
    return folder / "databases"


def sizes(name: str) -> list[LayerSize]:
    if name not in SIZES:
        SIZES[name] = layer_sizes(build_net(PROTOTXT / name / "deploy.prototxt", TEST))
    return SIZES[name]


def totals(name: str) -> tuple[str, str]:
    """Parameters and multiply-adds as a page has them."""
    parameters = sum(size.parameters for size in sizes(name))
    return f"{parameters:,}", f"{sum(size.multiply_adds for size in sizes(name)):,}"


@pytest.mark.parametrize("name", NETS)
def test_renders_and_learns_from_a_batch(name: str, databases: Path, tmp_path: Path) -> None:
    render(PROTOTXT / name, databases, tmp_path, epochs=1, batch_size=3, steps=(0.5,), snapshot=1, seed=1)
    train, test = (build_net(tmp_path / "train_val.prototxt", phase, seed=1) for phase in (TRAIN, TEST))
    deploy = build_net(tmp_path / "deploy.prototxt", TEST)
    for _ in range(2):  # layers that start at 0, as gates do, pass a gradient on after the first step
        train.forward()
        train.backward()
        with torch.no_grad():
            for learnable in train.learnable:
                if learnable.lr_mult and learnable.blob.grad is not None:
                    learnable.blob -= 0.001 * learnable.blob.grad
    assert torch.isfinite(train.loss)
    gradients = [learnable.blob.grad for learnable in train.learnable if learnable.lr_mult]
    assert all(gradient is not None and gradient.abs().max() > 0 for gradient in gradients)
    for layer, blobs in deploy.params.items():
        assert [blob.shape for blob in blobs] == [blob.shape for blob in train.params[layer]], layer
    test.share_with(train)
    deploy.share_with(train)
    with torch.no_grad():
        test.forward()
        (probabilities,) = deploy.forward(data=test.blobs["data"]).values()
    losses = -probabilities[range(len(probabilities)), test.blobs["label"].long()].log()
    assert losses.mean().item() == pytest.approx(test.loss.item(), rel=1e-4)


@pytest.mark.parametrize("name", NETS)
def test_the_deployed_input_has_the_scale_of_training(name: str) -> None:
    given = read_net(PROTOTXT / name / "deploy.prototxt").layer[0].transform_param
    data = [
        layer.transform_param
        for layer in read_net(PROTOTXT / name / "train_val.prototxt").layer
        if layer.type == "Data"
    ]
    assert {transform.scale for transform in data} == {given.scale}


def test_the_index_has_every_net_and_its_size() -> None:
    rows = re.findall(r"^\| \[?`(\w+)`.*?\| ([\d,]+) \| ([\d,]+) \|$", (PROTOTXT / "README.md").read_text(), re.M)
    assert {name: (parameters, multiply_adds) for name, parameters, multiply_adds in rows} == {
        name: totals(name) for name in NETS
    }


@pytest.mark.parametrize("name", WITH_PAGE)
def test_the_page_has_every_layer_and_its_size(name: str) -> None:
    """A row is a convolution or inner product with what follows it, up to the next."""
    expected: list[tuple[str, int, int]] = []
    for size in sizes(name):
        if size.multiply_adds:
            expected.append((size.name, 0, 0))
        if expected:
            layer, parameters, multiply_adds = expected[-1]
            expected[-1] = (layer, parameters + size.parameters, multiply_adds + size.multiply_adds)
    page = (PROTOTXT / name / "README.md").read_text()
    rows = re.findall(r"^\| (\w+): .*\| ([\d,]+) \| ([\d,]+) \|$", page, re.M)
    assert rows == [(layer, f"{parameters:,}", f"{multiply_adds:,}") for layer, parameters, multiply_adds in expected]
    assert "| **all** | | **{}** | **{}** |".format(*totals(name)) in page
    assert f"snakemake train --config net={name} " in page
    assert "(net.svg)" in page
    assert (PROTOTXT / name / "net.svg").stat().st_size < 70_000


@pytest.mark.parametrize(
    ("name", "published"), [("four_layer_cnn", 2_345_607), ("three_expressions", 2_395_075), ("gudi", 56_883_015)]
)
def test_has_the_size_that_its_authors_give(name: str, published: int) -> None:
    """Keras counts BatchNorm's means and variances; Caffe's blobs hold a factor beside them."""
    norms = sum(size.type == "BatchNorm" for size in sizes(name))
    assert sum(size.parameters + size.statistics for size in sizes(name)) - norms == published


@pytest.mark.parametrize(
    ("name", "kind", "rate", "epochs", "batch_size"),
    [
        ("gudi", "SGD", 1e-3, 100, 50),
        ("four_layer_cnn", "Adam", 1e-4, 50, 64),
        ("class_folders_vgg", "SGD", 1e-4, 200, 64),
        ("three_expressions", "Adam", 1e-3, 100, 32),
    ],
)
def test_has_its_own_recipe(name: str, kind: str, rate: float, epochs: int, batch_size: int) -> None:
    solver = read_solver(PROTOTXT / name / "solver.prototxt")
    settings = yaml.safe_load((PROTOTXT / name / "config.yaml").read_text())
    assert (solver.type, solver.base_lr, solver.weight_decay) == (kind, pytest.approx(rate), 0)
    assert (settings["epochs"], settings["batch_size"]) == (epochs, batch_size)
