"""What a net learns besides plain labels: the loss and its gradient, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
from google.protobuf import text_format

from pipeline.base.errors import InputError
from pipeline.caffe.database import DatabaseWriter, datum_from_image, record_key
from pipeline.caffe.net import Net
from pipeline.caffe.proto.caffe_pb2 import TEST, TRAIN, Datum, NetParameter
from pipeline.caffe.proto.files import PrototxtError
from pipeline.classifier.objective import (
    balanced_weights,
    infogain_matrix,
    learn_auxiliary,
    learn_by_infogain,
    learn_targets,
    read_class_weights,
)

LABELS = ("happy", "neutral", "sad")
BATCH = 4
NET = """
layer {{ name: "data" type: "Data" top: "data" top: "label"
         data_param {{ source: "{source}" batch_size: 4 backend: LMDB }} }}
layer {{ name: "scores" type: "InnerProduct" bottom: "data" top: "scores"
         inner_product_param {{ num_output: 3 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "scores" bottom: "label" top: "loss" }}
"""
TARGETS = np.random.RandomState(1).dirichlet([1, 1, 1], 8).astype(np.float32)


@pytest.fixture
def message(tmp_path: Path) -> NetParameter:
    """A net on eight images of noise, whose labels count around."""
    with DatabaseWriter(tmp_path / "train_lmdb") as database:
        for number in range(8):
            image = np.random.RandomState(number).randint(0, 3, (4, 4)).astype(np.uint8)
            database.put(record_key(number, "face.png"), datum_from_image(image, number % 3))
    return text_format.Parse(NET.format(source=tmp_path / "train_lmdb"), NetParameter())


@pytest.fixture
def targets(tmp_path: Path) -> Path:
    path = tmp_path / "targets_lmdb"
    with DatabaseWriter(path) as database:
        for number, row in enumerate(TARGETS):
            database.put(record_key(number, "face.png"), Datum(channels=3, height=1, width=1, float_data=row.tolist()))
    return path


def cross_entropy(net: Net, scores: str, targets: np.ndarray) -> torch.Tensor:
    return -(torch.from_numpy(targets) * torch.log_softmax(net.blobs[scores], 1)).sum() / BATCH


def test_soft_targets_are_learned_in_step_with_the_images(message: NetParameter, targets: Path) -> None:
    learn_targets(message, targets, BATCH)
    net = Net(message, TRAIN, seed=1)
    for rows in (TARGETS[:4], TARGETS[4:], TARGETS[:4]):
        net.clear_gradients()
        net.forward()
        expected = cross_entropy(net, "scores", rows)
        assert net.loss.item() == pytest.approx(expected.item(), rel=1e-5)
        net.backward()
        weights = net.params["scores"][0]
        (gradient,) = torch.autograd.grad(cross_entropy_again(net, rows), weights)
        torch.testing.assert_close(weights.grad, gradient, rtol=1e-4, atol=1e-5)


def cross_entropy_again(net: Net, rows: np.ndarray) -> torch.Tensor:
    weights, bias = net.params["scores"]
    scores = net.blobs["data"].flatten(1) @ weights.T + bias
    return -(torch.from_numpy(rows) * torch.log_softmax(scores, 1)).sum() / BATCH


def test_what_is_held_out_is_measured_by_its_labels_all_the_same(message: NetParameter, targets: Path) -> None:
    plain = Net(message, TEST, seed=1)
    learn_targets(message, targets, BATCH)
    learned = Net(message, TEST, seed=1)
    assert plain.forward()["loss"].item() == learned.forward()["loss"].item()


def test_a_second_head_adds_its_weighted_loss_and_is_not_there_in_test(message: NetParameter, targets: Path) -> None:
    learn_auxiliary(message, targets, BATCH, 0.25)
    net = Net(message, TRAIN, seed=1)
    outputs = net.forward()
    expected = cross_entropy(net, "auxiliary_scores", TARGETS[:4])
    assert outputs["auxiliary_loss"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert net.loss.item() == pytest.approx(outputs["loss"].item() + 0.25 * expected.item(), rel=1e-5)
    assert "auxiliary_scores" not in Net(message, TEST, seed=1).params


def test_infogain_smooths_and_weighs_the_labels(message: NetParameter, tmp_path: Path) -> None:
    matrix = infogain_matrix(LABELS, 0.1, {"sad": 2.0})
    share = 0.1 / 3
    np.testing.assert_allclose(matrix[0], [0.9 + share, share, share], rtol=1e-6)
    np.testing.assert_allclose(matrix[2], [2 * share, 2 * share, 2 * (0.9 + share)], rtol=1e-6)
    learn_by_infogain(message, matrix, tmp_path / "infogain.binaryproto")
    net = Net(message, TRAIN, seed=1)
    net.forward()
    labels = net.blobs["label"].long().numpy()
    assert net.loss.item() == pytest.approx(cross_entropy(net, "scores", matrix[labels]).item(), rel=1e-5)
    assert [layer.type for layer in Net(message, TEST, seed=1).layers][-1] == "SoftmaxWithLoss"


def test_balanced_weights_give_every_label_the_same_say() -> None:
    weights = balanced_weights(LABELS, [10, 30, 60])
    assert {label: weights[label] * count for label, count in zip(LABELS, (10, 30, 60), strict=True)} == pytest.approx(
        dict.fromkeys(LABELS, 100 / 3)
    )
    with pytest.raises(InputError, match="no image of neutral"):
        balanced_weights(LABELS, [10, 0, 60])


def test_a_weight_of_a_label_that_does_not_exist_is_refused() -> None:
    with pytest.raises(InputError, match="class_weights: contempt, where the labels are happy, neutral, sad"):
        infogain_matrix(LABELS, 0, {"contempt": 2})


def test_a_label_that_is_weighed_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="class_weights: 'sad=3': sad is named twice"):
        read_class_weights(["sad=2", "happy=1", "sad=3"], LABELS, tmp_path)


def test_a_net_without_one_loss_is_refused(message: NetParameter, targets: Path) -> None:
    del message.layer[-1]
    with pytest.raises(PrototxtError, match="0 SoftmaxWithLoss layers"):
        learn_targets(message, targets, BATCH)
