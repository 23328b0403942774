"""second_head: the net of a second head answers as the head did."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from google.protobuf import text_format

from pipeline.base.errors import InputError
from pipeline.caffe.net import Net, build_net
from pipeline.caffe.proto.blob_proto import read_mean, write_mean
from pipeline.caffe.proto.caffe_pb2 import TEST, NetParameter
from pipeline.data import ferplus, manifest
from pipeline.stages.second_head import second_head

BODY = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 1 dim: 4 dim: 4 } } }
layer { name: "scores" type: "InnerProduct" bottom: "data" top: "scores"
        inner_product_param { num_output: 7 weight_filler { type: "xavier" } } }
"""
SOFTMAX = 'layer { name: "prob" type: "Softmax" bottom: "scores" top: "prob" }'
HEAD = """
layer { name: "auxiliary_scores" type: "InnerProduct" bottom: "data" top: "auxiliary_scores"
        inner_product_param { num_output: 10 weight_filler { type: "xavier" } bias_filler { type: "uniform" } } }
"""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "deploy.prototxt").write_text(BODY + SOFTMAX)
    Net(text_format.Parse(BODY + HEAD, NetParameter()), TEST, seed=1).save(tmp_path / "best.caffemodel")
    manifest.write_labels(tmp_path / "labels.txt", ferplus.LABELS)
    write_mean(tmp_path / "trained.binaryproto", np.full((1, 4, 4), 9, np.float32))
    mean_file = f'mean_file: "{tmp_path}/trained.binaryproto"'
    (tmp_path / "train_val.prototxt").write_text(
        f'layer {{ name: "data" type: "Data" top: "data" transform_param {{ {mean_file} }} }}'
    )
    return tmp_path


def test_the_new_net_answers_as_the_head_did_among_the_labels(run: Path) -> None:
    second_head(run, run / "best.caffemodel", run / "labels.txt", run / "ferplus")
    trained = Net(text_format.Parse(BODY + HEAD, NetParameter()), TEST)
    trained.copy_from(run / "best.caffemodel")
    made = build_net(run / "ferplus/deploy.prototxt", TEST)
    made.copy_from(run / "ferplus/best.caffemodel")
    images = torch.from_numpy(np.random.RandomState(0).randn(5, 1, 4, 4).astype(np.float32))
    scores = trained.forward(data=images)["auxiliary_scores"]
    expected = torch.softmax(scores[:, : len(ferplus.LABELS)], 1)
    torch.testing.assert_close(made.forward(data=images)["prob"], expected)
    assert read_mean(run / "ferplus/mean.binaryproto").tolist() == np.full((1, 4, 4), 9).tolist()


def test_weights_without_a_second_head_are_refused(run: Path) -> None:
    Net(text_format.Parse(BODY, NetParameter()), TEST, seed=1).save(run / "best.caffemodel")
    with pytest.raises(InputError, match=r"no layer auxiliary_scores.*train with auxiliary=votes"):
        second_head(run, run / "best.caffemodel", run / "labels.txt", run / "ferplus")
    assert not (run / "ferplus").exists()


def test_labels_that_nobody_voted_for_are_refused(run: Path) -> None:
    manifest.write_labels(run / "labels.txt", ("angry", "fear"))
    with pytest.raises(InputError, match=r"labels\.txt: angry, where some of FER\+'s"):
        second_head(run, run / "best.caffemodel", run / "labels.txt", run / "ferplus")


def test_the_command_does_the_same(run: Path) -> None:
    words = ["second_head", run, run / "best.caffemodel", run / "labels.txt", run / "ferplus"]
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", *map(str, words)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (run / "ferplus/deploy.prototxt").exists()
