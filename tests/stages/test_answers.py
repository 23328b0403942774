"""answers: what trained nets say of the training images, in a student's order."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.small_set import noise
from helpers.trained_net import TrainedNet, make_trained_net, write_weights

from pipeline.base.errors import InputError
from pipeline.caffe.database import DatabaseReader, datum_to_array
from pipeline.classifier.model_folder import INDEX, TRAIN_ON, Classifier, read
from pipeline.data import manifest
from pipeline.data.folds import fold_of
from pipeline.stages.answers import answers

LABELS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> TrainedNet:
    return make_trained_net(noise(60), tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="module")
def models(trained: TrainedNet, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The model folders of two nets with other weights, calibrated and with a class prior, one in int8."""
    folder = tmp_path_factory.mktemp("models")
    weights = [trained.weights, write_weights(trained.deploy, folder / "other.caffemodel", 0.5)]
    trained.evaluate(folder)
    for number, precision in enumerate(("float32", "int8")):
        trained.export(
            folder / str(number),
            weights=weights[number],
            precision=precision,
            metrics=folder / "metrics.json",
        )
    return [folder / "0", folder / "1"]


def said_by(model: Path, trained: TrainedNet) -> tuple[list[str], np.ndarray]:
    """The net's own probabilities, of its ONNX file alone."""
    folder = read(model)
    assert folder.temperature != 1
    assert folder.class_prior != 0
    session = Classifier.session(folder.read_onnx())
    with DatabaseReader(trained.databases / "train_lmdb") as reader:
        records = list(reader)
    images = np.stack([datum_to_array(datum, "it") for _, datum in records])
    (found,) = session.run(["prob"], {"data": folder.transformer()(images)})
    return [key.decode().split("_", 1)[1] for key, _ in records], found


def read_answers(path: Path) -> tuple[list[str], np.ndarray]:
    with open(path, newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["key", *LABELS]
    return [row[0].split("_", 1)[1] for row in rows], np.array([[float(value) for value in row[1:]] for row in rows])


def test_several_teachers_give_their_mean(trained: TrainedNet, models: list[Path], tmp_path: Path) -> None:
    answers(trained.databases, tmp_path / "answers.csv", models)
    paths, first = said_by(models[0], trained)
    second = said_by(models[1], trained)[1]
    assert np.abs(first - second).max() > 0.01
    same_paths, mean = read_answers(tmp_path / "answers.csv")
    assert same_paths == paths
    np.testing.assert_allclose(mean, (first + second) / 2, atol=1e-5)


def test_a_temperature_flattens(trained: TrainedNet, models: list[Path], tmp_path: Path) -> None:
    answers(trained.databases, tmp_path / "answers.csv", models[:1], temperature=2)
    roots = np.sqrt(said_by(models[0], trained)[1])
    flattened = read_answers(tmp_path / "answers.csv")[1]
    np.testing.assert_allclose(flattened, roots / roots.sum(axis=1, keepdims=True), atol=1e-5)
    with pytest.raises(InputError, match="temperature 0"):
        answers(trained.databases, tmp_path / "answers.csv", models[:1], temperature=0)


def test_out_of_fold_each_teacher_answers_on_its_own_fold(
    trained: TrainedNet, models: list[Path], tmp_path: Path
) -> None:
    answers(trained.databases, tmp_path / "answers.csv", models, manifest_path=trained.manifest)
    folds = {row.path: fold_of(row.sha256, 2) for row in manifest.read(trained.manifest)}
    said = [said_by(model, trained)[1] for model in models]
    paths, found = read_answers(tmp_path / "answers.csv")
    assert {folds[path] for path in paths} == {0, 1}
    for number, (path, row) in enumerate(zip(paths, found, strict=True)):
        np.testing.assert_allclose(row, said[folds[path]][number], atol=1e-5)


def test_out_of_fold_a_teacher_has_not_seen_its_fold(trained: TrainedNet, models: list[Path], tmp_path: Path) -> None:
    without = [tmp_path / "first", tmp_path / "second"]
    for number, (model, folder) in enumerate(zip(models, without, strict=True), 1):
        shutil.copytree(model, folder)
        record = json.loads((folder / INDEX).read_text())
        record["training"] = {"sha256": {f"data/set/databases/kaggle_without_{number}_of_2/train_lmdb/data.mdb": ""}}
        (folder / INDEX).write_text(json.dumps(record))
    answers(trained.databases, tmp_path / "answers.csv", without, manifest_path=trained.manifest)
    (tmp_path / "answers.csv").unlink()
    wrong = "second: was trained on .*kaggle_without_2_of_2, which does not leave out fold 1/2.*with fold=1/2"
    with pytest.raises(InputError, match=wrong):
        answers(trained.databases, tmp_path / "answers.csv", without[::-1], manifest_path=trained.manifest)
    assert not (tmp_path / "answers.csv").exists()


def test_a_teacher_answers_on_faces_of_the_kind_that_it_learned_from(
    trained: TrainedNet, models: list[Path], tmp_path: Path
) -> None:
    """A model of both kinds is served aligned faces; the record of its training tells it from one of these alone."""
    whole, both, ensemble = (tmp_path / name for name in ("whole", "both", "ensemble"))
    trained.export(whole, faces="images")
    for folder, told in (
        (both, {"training": {"sha256": {"data/set/databases/both_kaggle/train_lmdb/data.mdb": ""}}}),
        (ensemble, {"faces_seen": ["aligned", "images"]}),
    ):
        shutil.copytree(models[0], folder)
        (folder / INDEX).write_text(json.dumps(json.loads((folder / INDEX).read_text()) | told))
    taken = [(models[0], "aligned"), (whole, "images"), *((model, on) for model in (both, ensemble) for on in TRAIN_ON)]
    for model, train_on in taken:
        answers(trained.databases, tmp_path / "answers.csv", [model], train_on=train_on)
        (tmp_path / "answers.csv").unlink()
    for model, train_on, said in (
        (models[0], "images", "0: learned from aligned faces, where this run reads whole images.*train_on=images or"),
        (models[0], "both", "0: learned from aligned faces, where this run reads whole images"),
        (whole, "aligned", "whole: learned from whole images, where this run reads aligned faces.*train_on=aligned or"),
        (whole, "both", "whole: learned from whole images, where this run reads aligned faces"),
    ):
        with pytest.raises(InputError, match=said):
            answers(trained.databases, tmp_path / "answers.csv", [model], train_on=train_on)
        assert not (tmp_path / "answers.csv").exists()
    (ensemble / INDEX).write_text(json.dumps(json.loads((ensemble / INDEX).read_text()) | {"faces_seen": ["images"]}))
    with pytest.raises(InputError, match=r"faces_seen \['images'\] where some of aligned, images were expected"):
        answers(trained.databases, tmp_path / "answers.csv", [ensemble])


def test_a_manifest_of_other_images_is_refused(trained: TrainedNet, models: list[Path], tmp_path: Path) -> None:
    rows = manifest.read(trained.manifest)
    manifest.write(tmp_path / "manifest.csv", rows[1:], manifest.COLUMNS)
    with pytest.raises(InputError, match="no row of Training/"):
        answers(trained.databases, tmp_path / "answers.csv", models, manifest_path=tmp_path / "manifest.csv")
    assert not (tmp_path / "answers.csv").exists()


def test_a_teacher_of_the_same_labels_in_another_order_is_refused(
    trained: TrainedNet, models: list[Path], tmp_path: Path
) -> None:
    databases = tmp_path / "databases"
    databases.mkdir()
    (databases / "train_lmdb").symlink_to(trained.databases / "train_lmdb")
    manifest.write_labels(databases / "labels.txt", LABELS[::-1])
    with pytest.raises(InputError, match=r"0: labels angry, .* where .*labels\.txt has neutral, .*of these labels"):
        answers(databases, tmp_path / "answers.csv", models)
    assert not (tmp_path / "answers.csv").exists()
