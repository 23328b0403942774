"""evaluate: the right figures, of every held-out image once, or a clear error and no file."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import f1_score
from small_set import noise
from trained_net import SOFTMAX, TrainedNet, make_trained_net, probabilities_by_hand, write_deploy, write_weights

from pipeline import manifest
from pipeline.caffe.blobs import write_mean
from pipeline.calibration import UNCERTAIN, calibrate
from pipeline.errors import InputError
from pipeline.evaluate import figures, macro_f1, macro_f1_interval

LABELS = ("a", "b", "c")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> TrainedNet:
    return make_trained_net(noise(40), tmp_path_factory.mktemp("trained"))


def one_hot(predicted: list[int], confidence: float = 0.8) -> np.ndarray:
    rows = np.full((len(predicted), 3), (1 - confidence) / 2)
    rows[np.arange(len(predicted)), predicted] = confidence
    return rows


def test_figures_of_ten_predictions_are_those_of_pencil_and_paper() -> None:
    truth = np.array([0] * 5 + [1] * 4 + [2])
    found = figures(truth, one_hot([0, 0, 0, 0, 1, 1, 1, 1, 1, 0]), LABELS)
    assert found["confusion"] == [[4, 1, 0], [0, 4, 0], [1, 0, 0]]
    assert found["accuracy"] == 0.8
    assert found["accuracy_95"] == pytest.approx([0.4902, 0.9433], abs=1e-4)  # Wilson's interval of 8 in 10
    assert found["per_class"][0] == {
        "label": "a",
        "precision": 0.8,
        "recall": 0.8,
        "f1": pytest.approx(0.8),
        "support": 5,
    }
    assert found["per_class"][2] == {"label": "c", "precision": None, "recall": 0, "f1": 0, "support": 1}
    assert found["macro_f1"] == pytest.approx((0.8 + 8 / 9 + 0) / 3)
    assert found["ece"] == pytest.approx(0)  # 80% sure, and right 80% of the time
    assert found["nll"] == pytest.approx(-(8 * np.log(0.8) + 2 * np.log(0.1)) / 10)


def test_macro_f1_leaves_out_classes_that_neither_occur_nor_are_predicted() -> None:
    generator = np.random.default_rng(0)
    truth, predicted = generator.integers(3, size=(2, 200))
    confusion = np.zeros((4, 4), int)
    np.add.at(confusion, (truth, predicted), 1)
    assert macro_f1(confusion) == pytest.approx(f1_score(truth, predicted, average="macro"))
    low, high = macro_f1_interval(confusion)
    assert low < macro_f1(confusion) < high
    assert macro_f1_interval(confusion) == [low, high]  # seeded


def test_every_held_out_image_is_measured_once(trained: TrainedNet, tmp_path: Path) -> None:
    metrics = trained.evaluate(tmp_path / "run")
    assert metrics == json.loads((tmp_path / "run/metrics.json").read_text())
    rows = manifest.read(trained.manifest)
    for part, usage in (("val", "PublicTest"), ("test", "PrivateTest")):
        chosen = [row for row in rows if row.usage == usage]
        images = [cv2.imread(str(trained.manifest.parent / row.path), cv2.IMREAD_GRAYSCALE) for row in chosen]
        probabilities = probabilities_by_hand(trained, np.array(images))
        truth = np.array([row.label for row in chosen])
        confusion = np.zeros((7, 7), int)
        np.add.at(confusion, (truth, probabilities.argmax(axis=1)), 1)
        assert metrics[part]["n"] == len(chosen)
        assert metrics[part]["confusion"] == confusion.tolist()
        assert metrics[part]["nll"] == pytest.approx(-np.log(probabilities[range(len(truth)), truth]).mean(), rel=1e-4)
        assert metrics[part]["unseen"]["n"] == len(chosen)
        calibrated = calibrate(probabilities, metrics["temperature"])
        sure = calibrated.max(axis=1) >= UNCERTAIN
        assert metrics[part]["calibrated"]["sure"]["share"] == pytest.approx(sure.mean())
    assert metrics["val"]["calibrated"]["nll"] < metrics["val"]["nll"]
    assert metrics["files"][0]["path"] == str(trained.deploy)


def test_confusion_is_drawn_for_each_part(trained: TrainedNet, tmp_path: Path) -> None:
    trained.evaluate(tmp_path / "run")
    with Image.open(tmp_path / "run/confusion.png") as image:
        assert min(image.size) > 1000
        assert len(image.convert("RGB").getcolors(1 << 20) or ()) > 50


def test_images_that_stand_in_training_are_told_apart(tmp_path: Path) -> None:
    images = noise(40)
    images[3] = images[0]  # row 3 is of PublicTest, row 0 of Training
    trained = make_trained_net(images, tmp_path)
    metrics = trained.evaluate(tmp_path / "run")
    assert (metrics["val"]["n"], metrics["val"]["seen_in_training"], metrics["val"]["unseen"]["n"]) == (8, 1, 7)
    assert (metrics["test"]["seen_in_training"], metrics["test"]["unseen"]["n"]) == (0, 8)


def test_an_empty_test_set_is_null(tmp_path: Path) -> None:
    trained = make_trained_net(noise(20), tmp_path, usages=("Training", "PublicTest"))
    metrics = trained.evaluate(tmp_path / "run")
    assert metrics["test"] is None
    assert metrics["val"]["n"] > 0


def test_without_a_val_set_nothing_is_calibrated(tmp_path: Path) -> None:
    trained = make_trained_net(noise(40), tmp_path, protocol="merged")
    metrics = trained.evaluate(tmp_path / "run")
    assert metrics["temperature"] is None
    assert "calibrated" not in metrics["test"]


def test_what_does_not_belong_together_is_refused(trained: TrainedNet, tmp_path: Path) -> None:
    wrong_mean = tmp_path / "wrong.binaryproto"
    write_mean(wrong_mean, np.zeros((3, 48, 48), np.float32))
    small_mean = tmp_path / "small.binaryproto"
    write_mean(small_mean, np.zeros((1, 40, 40), np.float32))
    eight = write_deploy(tmp_path / "eight.prototxt", classes=8)
    bare = write_deploy(tmp_path / "bare.prototxt", last="")
    two = write_deploy(tmp_path / "two.prototxt", last=SOFTMAX + SOFTMAX.replace("prob", "twice"))
    other = write_weights(write_deploy(tmp_path / "other.prototxt", crop=40), tmp_path / "other.caffemodel")
    truncated = tmp_path / "truncated.caffemodel"
    truncated.write_bytes(trained.weights.read_bytes()[:-1000])
    cases = (
        ({"mean": wrong_mean}, r"wrong.binaryproto: a mean of shape \(3, 48, 48\) .* takes \(1, 42, 42\)"),
        ({"mean": small_mean}, r"small.binaryproto: a mean of shape \(1, 40, 40\)"),
        ({"deploy": eight, "weights": write_weights(eight, tmp_path / "8.caffemodel")}, "8 classes .* names 7"),
        ({"deploy": bare}, "'scores' does not add up to 1; .* Softmax"),
        ({"deploy": two}, "outputs prob, twice where one"),
        ({"weights": other}, r"layer 'hidden' blob 0 has shape .* where the net has"),
        ({"weights": truncated}, "truncated.caffemodel: "),
    )
    for changed, message in cases:
        with pytest.raises(InputError, match=message):
            trained.evaluate(tmp_path / "run", **changed)
        assert not (tmp_path / "run").exists()


def test_a_manifest_of_other_images_is_refused(trained: TrainedNet, tmp_path: Path) -> None:
    rows = manifest.read(trained.manifest)
    manifest.write(tmp_path / "part.csv", [row for row in rows if row.usage == "Training"])
    with pytest.raises(InputError, match=r"part.csv: no row of PublicTest/"):
        trained.evaluate(tmp_path / "run", manifest_path=tmp_path / "part.csv")


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_a_list_that_is_not_its_databases_is_refused(part: str, tmp_path: Path) -> None:
    trained = make_trained_net(noise(40), tmp_path)
    path = trained.databases / f"{part}.txt"
    lines = path.read_text().splitlines()
    for changed, said in [
        ([], "0 lines where"),
        (lines[:-1], f"{len(lines) - 1} lines where .* has {len(lines)} records"),
        ([*lines[:2], lines[3], lines[2], *lines[4:]], "txt:3: "),
        ([lines[0].rpartition(" ")[0] + " 99", *lines[1:]], "txt:1: .* 99 where"),
    ]:
        path.write_text("".join(f"{line}\n" for line in changed))
        with pytest.raises(InputError, match=said):
            trained.evaluate(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_manifest_with_other_labels_is_refused(tmp_path: Path) -> None:
    trained = make_trained_net(noise(40), tmp_path)
    rows = manifest.read(trained.manifest)
    manifest.write(trained.manifest, [replace(row, label=(row.label + 1) % 7) for row in rows])
    with pytest.raises(InputError, match=r"manifest.csv: label \d for .*; give the manifest they were made from"):
        trained.evaluate(tmp_path / "run")
