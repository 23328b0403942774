"""The nets of prototxt and its classics against real Caffe, on random weights; sizes as classic_nets.py cuts them."""

from pathlib import Path

import pytest
import torch
from caffe_root import CaffeRoot
from classic_nets import (
    CLASSICS,
    NETS,
    PROTOTXT,
    Kept,
    cut,
    deployed,
    deployed_by_caffe,
    deviations,
    on_small_databases,
    published,
    recorded,
    trained,
    trained_by_caffe,
    whole,
)
from harness import TOLERANCE, Arrays
from parity import Parity

from pipeline.caffe.net import Net
from pipeline.caffe.proto.caffe_pb2 import TEST, TRAIN, NetParameter
from pipeline.caffe.proto.files import read_solver

ONNX_TOLERANCE = 1e-4


def test_every_net_is_compared() -> None:
    faces = {path.parent.name for path in PROTOTXT.glob("*/train_val.prototxt")}
    assert set(NETS) | {"face_emotion_net"} == faces | {path.name for path in CLASSICS.iterdir()}  # it has its own test


@pytest.mark.parametrize("name", NETS)
def test_has_the_published_number_of_parameters(name: str) -> None:
    net = Net(published(name), TEST)
    learned = {layer.param.name for layer in net.layers if layer.blobs_are_learned}
    assert (
        sum(learnable.blob.numel() for learnable in net.learnable if learnable.layer in learned)
        == NETS[name].parameters
    )


@pytest.mark.parametrize("name", NETS)
def test_trained_and_deployed_net_have_the_same_layers(name: str) -> None:
    """Weights of the one fit the other."""
    train, deploy = (Net(cut(name, phase), phase) for phase in (TRAIN, TEST))
    for layer, blobs in deploy.params.items():
        assert [blob.shape for blob in blobs] == [blob.shape for blob in train.params[layer]], layer


@pytest.mark.parametrize("name", [path.name for path in CLASSICS.iterdir()])
def test_reads_its_databases_in_both_phases(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    param = on_small_databases(name)
    train, test = (Net(param, phase, seed=1) for phase in (TRAIN, TEST))
    test.share_with(train)  # with what BatchNorm has seen
    for net in (train, test):
        with torch.no_grad():
            outputs = net.forward()
        assert outputs
        assert all(torch.isfinite(output).all() for output in outputs.values()), outputs
        assert net.loss > 0


@pytest.mark.parametrize("path", sorted(CLASSICS.glob("*/solver.prototxt")), ids=lambda path: path.parent.name)
def test_solver_names_its_net(path: Path) -> None:
    solver = read_solver(path)
    assert (CLASSICS.parents[1] / solver.net).samefile(path.parent / "train_val.prototxt")


def check(name: str, ours: Arrays, caffe: dict[str, Kept], limit: float) -> tuple[float, float]:
    """Fail naming what is beyond the limit; the largest deviations of tops and of gradients."""
    found = deviations(name, ours, caffe)
    wrong = {key: f"{far:.1e}" for key, far in found.items() if far > limit}
    assert not wrong, f"{name}: beyond {limit:g} of real Caffe: {wrong}"
    tops = [far for key, far in found.items() if key.startswith("top/")]
    return max(tops), max((far for key, far in found.items() if "gradient/" in key), default=0.0)


def check_trained(name: str, caffe: dict[str, Kept], folder: Path, parity: Parity) -> None:
    tops, gradients = check(name, trained(name, folder), caffe, NETS[name].tolerance)
    parity("Nets", name, "forward", tops)
    parity("Nets", name, "gradients", gradients)


def check_deployed(name: str, param: NetParameter, caffe: dict[str, Kept], folder: Path, parity: Parity) -> None:
    ours, onnx = deployed(name, param, folder)
    parity("Nets", name, "forward", check(name, ours, caffe, TOLERANCE)[0])
    parity("Nets", name, "ONNX Runtime", check(name, onnx, caffe, ONNX_TOLERANCE)[0])


@pytest.mark.parametrize("name", NETS)
def test_trained_net_agrees_with_caffe(name: str, tmp_path: Path, parity: Parity) -> None:
    check_trained(name, recorded(name, "train"), tmp_path, parity)


@pytest.mark.parametrize("name", NETS)
def test_deployed_net_agrees_with_caffe(name: str, tmp_path: Path, parity: Parity) -> None:
    check_deployed(name, cut(name, TEST), recorded(name, "deploy"), tmp_path, parity)


@pytest.mark.parametrize("name", NETS)
def test_agrees_with_live_caffe(name: str, caffe: CaffeRoot, tmp_path: Path, parity: Parity) -> None:
    check_trained(name, whole(trained_by_caffe(name, caffe)), tmp_path, parity)
    deploy = cut(name, TEST)
    check_deployed(name, deploy, whole(deployed_by_caffe(name, deploy, caffe)), tmp_path, parity)


@pytest.mark.parametrize("name", NETS)
def test_net_as_published_agrees_with_live_caffe(name: str, caffe: CaffeRoot, tmp_path: Path, parity: Parity) -> None:
    """In its full width on an image of the published size."""
    check_deployed(name, published(name), whole(deployed_by_caffe(name, published(name), caffe)), tmp_path, parity)
