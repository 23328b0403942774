"""evaluate: the right figures, of every held-out image once, or a clear error and no file."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.pictures import read_picture
from helpers.small_set import noise
from helpers.trained_net import (
    SOFTMAX,
    TrainedNet,
    make_trained_net,
    probabilities_by_hand,
    write_deploy,
    write_weights,
)
from PIL import Image
from sklearn.metrics import f1_score

from pipeline.base.errors import InputError
from pipeline.caffe.proto.blob_proto import write_mean
from pipeline.classifier.calibration import UNCERTAIN, calibrate
from pipeline.data import manifest
from pipeline.data.labels import LABELS as EXPRESSIONS
from pipeline.data.shards import Shard
from pipeline.stages.evaluate import (
    _draw_confusion,
    choose_power,
    evaluate_shard,
    figures,
    macro_f1,
    macro_f1_interval,
    prior_figures,
    training_shares,
)

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
        images = [read_picture(trained.manifest.parent / row.path, cv2.IMREAD_GRAYSCALE) for row in chosen]
        probabilities = probabilities_by_hand(trained, np.array(images))
        truth = np.array([row.label for row in chosen])
        confusion = np.zeros((7, 7), int)
        np.add.at(confusion, (truth, probabilities.argmax(axis=1)), 1)
        assert metrics[part]["n"] == len(chosen)
        assert metrics[part]["confusion"] == confusion.tolist()
        assert metrics[part]["nll"] == pytest.approx(-np.log(probabilities[range(len(truth)), truth]).mean(), rel=1e-4)
        assert metrics[part]["unseen"]["n"] == len(chosen)
        shares = np.bincount([row.label for row in rows if row.usage == "Training"]) / 24
        assert list(metrics["training_shares"].values()) == pytest.approx(list(shares))
        for power, found in [(row["power"], row) for row in metrics[part]["priors"]]:
            # p^(1 / temperature) / share^power, normalised, written out.
            served = probabilities ** (1 / metrics["temperature"]) / shares**power
            served /= served.sum(axis=1, keepdims=True)
            assert found["accuracy"] == (served.argmax(axis=1) == truth).mean()
            recalls = [(served.argmax(axis=1) == label)[truth == label].mean() for label in set(truth)]
            assert found["macro_recall"] == pytest.approx(np.mean(recalls))
        calibrated = calibrate(probabilities, metrics["temperature"], shares ** -metrics["class_prior"])
        sure = calibrated.max(axis=1) >= UNCERTAIN
        assert metrics[part]["served"]["sure"]["share"] == pytest.approx(sure.mean())
    assert metrics["val"]["priors"][0]["ece"] == pytest.approx(metrics["val"]["priors"][0]["ece_at_prior"])
    assert metrics["files"][0]["path"] == str(trained.deploy)


def test_views_are_measured_beside_one(trained: TrainedNet, tmp_path: Path) -> None:
    metrics = trained.evaluate(tmp_path / "run", views=2)
    one, two = metrics["val"]["views"]
    assert {name: one[name] for name in ("accuracy", "macro_f1", "ece", "nll")} == {
        name: metrics["val"][name] for name in ("accuracy", "macro_f1", "ece", "nll")
    }
    assert one["served"]["ece"] == metrics["val"]["served"]["ece"]
    assert two["nll"] != one["nll"]
    assert metrics["view_temperatures"].keys() == {"2"}
    assert metrics["view_temperatures"]["2"] != metrics["temperature"]
    assert min(one["ms_per_image"], two["ms_per_image"]) > 0


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
    assert metrics["class_prior"] is None
    assert "served" not in metrics["test"]


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


def test_the_default_class_prior_is_the_strongest_that_the_held_out_images_cannot_tell_from_the_best() -> None:
    generator = np.random.default_rng(0)
    shares = np.array([0.6, 0.3, 0.1])
    truth = generator.choice(3, 20_000, p=shares)
    # Gaussian classes, whose posterior probabilities are known: what is right for them is no correction at all.
    likelihoods = np.exp(-((generator.normal(1.5 * truth)[:, None] - 1.5 * np.arange(3)) ** 2) / 2)
    probabilities = likelihoods * shares
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    few = choose_power(truth[:300], probabilities[:300], 1.0, shares)
    many = choose_power(truth, probabilities, 1.0, shares)
    assert 0 < many < few  # the more images, the smaller the standard error

    # A net that overrates the commonest class needs a strong correction.
    overrated = probabilities * shares**0.3
    power = choose_power(truth, overrated / overrated.sum(axis=1, keepdims=True), 1.0, shares)
    assert power == pytest.approx(many + 0.3)


def test_ece_at_a_prior_counts_images_as_often_as_it_says() -> None:
    # Two bins: the three right images of class a at 0.8, the wrong one of class b at 0.6.
    truth, ratios = np.array([0, 0, 0, 1]), np.array([1.0, 3.0])
    probabilities = np.array([[0.8, 0.2]] * 3 + [[0.6, 0.4]])
    found = prior_figures(truth, probabilities, ratios)
    assert found["ece"] == pytest.approx((3 * 0.2 + 0.6) / 4)
    assert found["ece_at_prior"] == pytest.approx((3 * 0.2 + 3 * 0.6) / 6)
    assert (found["accuracy"], found["macro_recall"], found["macro_f1"]) == (0.75, 0.5, pytest.approx(6 / 7 / 2))


def test_a_class_without_training_images_is_refused() -> None:
    with pytest.raises(InputError, match=r"train.txt: no image of 'b'"):
        training_shares([0, 2, 2], LABELS, Path("databases"))
    assert training_shares([0, 1, 2, 2], LABELS, Path("databases")).tolist() == [0.25, 0.25, 0.5]


def test_a_net_has_learned_the_shares_that_its_class_weights_made(trained: TrainedNet, tmp_path: Path) -> None:
    shares = training_shares([0, 1, 2, 2], LABELS, Path("databases"), {"a": 3.0, "b": 0.0})
    assert shares.tolist() == pytest.approx([3 / 6, 1 / 6, 2 / 6])  # what weighs nothing is not learned, so it stays
    plain = trained.evaluate(tmp_path / "plain")
    balanced = trained.evaluate(tmp_path / "balanced", class_weights=["balanced"])
    assert list(balanced["training_shares"].values()) == pytest.approx([1 / 7] * 7)
    uniform = balanced["val"]["priors"][-1]
    assert uniform["accuracy"] == balanced["val"]["priors"][0]["accuracy"] == plain["val"]["priors"][0]["accuracy"]
    assert uniform["ece_at_prior"] == pytest.approx(balanced["val"]["priors"][0]["ece_at_prior"])


def test_a_manifest_of_other_images_is_refused(trained: TrainedNet, tmp_path: Path) -> None:
    rows = manifest.read(trained.manifest)
    manifest.write(tmp_path / "part.csv", [row for row in rows if row.usage == "Training"], manifest.COLUMNS)
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
    manifest.write(trained.manifest, [row._replace(label=(row.label + 1) % 7) for row in rows], manifest.COLUMNS)
    with pytest.raises(InputError, match=r"manifest.csv: label \d for .*; give the manifest they were made from"):
        trained.evaluate(tmp_path / "run")


@pytest.mark.parametrize("classes", [2, 3, 7, 10, 100])
@pytest.mark.filterwarnings("error")
def test_a_confusion_table_is_whole_for_any_number_of_classes(classes: int, tmp_path: Path) -> None:
    counts = np.full((classes, classes), 1234)
    found = {
        "n": int(counts.sum()),
        "confusion": counts.tolist(),
        "accuracy": 0.678,
        "accuracy_95": (0.66, 0.69),
        "macro_f1": 0.6543,
    }
    labels = (*EXPRESSIONS, "contempt", "$\\frac$", "嬉しい", *map(str, range(90)))[:classes]
    _draw_confusion({"PublicTest": found, "PrivateTest": found}, labels, tmp_path / "confusion.png")
    with Image.open(tmp_path / "confusion.png") as image:
        pixels = np.asarray(image.convert("L"))
    assert max(pixels.shape) < 5000
    for edge in (pixels[:4], pixels[-4:], pixels[:, :4], pixels[:, -4:]):
        assert (edge == 255).all()


def test_shards_together_measure_what_one_run_does(
    trained: TrainedNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All but the time, for each number of views; the second shard of three has no image of the eight."""
    for module in ("classifier.trained", "stages.evaluate"):
        monkeypatch.setattr(f"pipeline.{module}.BATCH", 4)
    shards = [tmp_path / "shards" / number for number in "123"]
    given = {"databases": trained.databases, "mean": trained.mean}
    for number, folder in enumerate(shards, 1):
        evaluate_shard(trained.deploy, trained.weights, folder, Shard(number, 3), **given, views=10)
    found = trained.evaluate(tmp_path / "gathered", views=10, shards=shards[::-1])
    whole = trained.evaluate(tmp_path / "whole", views=10)
    assert (tmp_path / "gathered/confusion.png").read_bytes() == (tmp_path / "whole/confusion.png").read_bytes()
    for metrics in (found, whole):
        for part in ("val", "test"):
            assert len(metrics[part]["views"]) == 3
            assert all(row.pop("ms_per_image") > 0 for row in metrics[part]["views"])
    assert found == whole
    with pytest.raises(InputError, match="shard 1/3 is missing"):
        trained.evaluate(tmp_path / "again", views=10, shards=shards[1:])
    with pytest.raises(InputError, match="make the shards with the same options, of the same files"):
        trained.evaluate(tmp_path / "again", views=2, shards=shards)
    (shards[1] / "test_2.npz").write_bytes(b"PK")
    with pytest.raises(InputError, match=r"test_2\.npz: .*; make the shard again"):
        trained.evaluate(tmp_path / "again", views=10, shards=shards)
    assert not (tmp_path / "again").exists()
