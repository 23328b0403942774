"""second_head: the net of a second head answers as the head did."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from google.protobuf import text_format
from helpers.small_set import noise
from helpers.trained_net import TrainedNet, make_trained_net

from pipeline.base.errors import InputError
from pipeline.caffe.net import Net, build_net
from pipeline.caffe.proto.caffe_pb2 import TEST, NetParameter
from pipeline.data import ferplus, manifest
from pipeline.stages.second_head import second_head

HEAD = """
layer { name: "auxiliary_scores" type: "InnerProduct" bottom: "hidden" top: "auxiliary_scores"
        inner_product_param { num_output: 10 weight_filler { type: "xavier" } bias_filler { type: "uniform" } } }
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> TrainedNet:
    return make_trained_net(noise(20), tmp_path_factory.mktemp("trained"))


@pytest.fixture
def run(trained: TrainedNet, tmp_path: Path) -> Path:
    """A run that trained a second head: both_heads.caffemodel, its model folder, and labels.txt of FER+."""
    both_heads(trained).save(tmp_path / "both_heads.caffemodel")
    (tmp_path / "run.json").write_text('{"seed": 1, "sha256": {}}')
    weights = tmp_path / "both_heads.caffemodel"
    trained.export(tmp_path / "model", weights=weights, record=tmp_path / "run.json")
    manifest.write_labels(tmp_path / "labels.txt", ferplus.LABELS)
    return tmp_path


def both_heads(trained: TrainedNet) -> Net:
    return Net(text_format.Parse(trained.deploy.read_text() + HEAD, NetParameter()), TEST, seed=1)


def test_the_new_net_answers_as_the_head_did_among_the_labels(trained: TrainedNet, run: Path) -> None:
    second_head(run / "model", run / "labels.txt", run / "ferplus")
    first = both_heads(trained)
    first.copy_from(run / "both_heads.caffemodel")
    made = build_net(run / "ferplus/deploy.prototxt", TEST)
    made.copy_from(run / "ferplus/best.caffemodel")
    images = torch.from_numpy(np.random.RandomState(0).randn(5, 1, 42, 42).astype(np.float32))
    scores = first.forward(data=images)["auxiliary_scores"]
    expected = torch.softmax(scores[:, : len(ferplus.LABELS)], 1)
    torch.testing.assert_close(made.forward(data=images)["prob"], expected)
    assert (run / "ferplus/mean.binaryproto").read_bytes() == trained.mean.read_bytes()
    assert json.loads((run / "ferplus/run.json").read_text()) == {"seed": 1, "sha256": {}}


@pytest.mark.parametrize(
    ("precision", "message"),
    [
        ("float32", r"no layer auxiliary_scores.*train with auxiliary=votes"),
        ("int8", r"model: no weights\.caffemodel, which int8 leaves out .* export_precision=float32"),
    ],
)
def test_models_without_a_second_head_are_refused(trained: TrainedNet, run: Path, precision: str, message: str) -> None:
    trained.export(run / "model", precision=precision)
    with pytest.raises(InputError, match=message):
        second_head(run / "model", run / "labels.txt", run / "ferplus")
    assert not (run / "ferplus").exists()


def test_a_head_is_not_measured_on_faces_that_it_has_never_seen(run: Path) -> None:
    with pytest.raises(InputError, match="model: learned from aligned faces, where this run reads whole images"):
        second_head(run / "model", run / "labels.txt", run / "ferplus", train_on="images")
    assert not (run / "ferplus").exists()


def test_labels_that_nobody_voted_for_are_refused(run: Path) -> None:
    manifest.write_labels(run / "labels.txt", ("angry", "fear"))
    with pytest.raises(InputError, match=r"labels\.txt: angry, where some of FER\+'s"):
        second_head(run / "model", run / "labels.txt", run / "ferplus")


def test_the_command_does_the_same(run: Path) -> None:
    words = ["second_head", run / "model", run / "labels.txt", run / "ferplus"]
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", *map(str, words)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (run / "ferplus/deploy.prototxt").exists()
