"""answers: what trained nets say of the training images, in a student's order."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.small_set import noise
from helpers.trained_net import TrainedNet, make_trained_net, write_weights

from pipeline.base.errors import InputError
from pipeline.classifier.trained import find_mean, load, predictions
from pipeline.data import manifest
from pipeline.data.folds import fold_of
from pipeline.stages.answers import answers

LABELS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> TrainedNet:
    return make_trained_net(noise(60), tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="module")
def runs(trained: TrainedNet, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Folders of two runs, as train leaves them, of nets with other weights."""
    folders = []
    for number in range(2):
        run = tmp_path_factory.mktemp(f"run{number}")
        shutil.copy(trained.deploy, run / "deploy.prototxt")
        (run / "train_val.prototxt").write_text(
            f'layer {{ name: "data" type: "Data" top: "data" transform_param {{ mean_file: "{trained.mean}" }} }}'
        )
        shutil.copy(trained.weights, run / "best.caffemodel")
        folders.append(run)
    other = folders[1] / "averaged.caffemodel"  # is preferred to best.caffemodel
    write_weights(trained.deploy, other)
    damp(other)
    return folders


def damp(path: Path) -> None:
    """Halve all weights of a net."""
    from pipeline.caffe.proto.blob_proto import from_blobproto, to_blobproto
    from pipeline.caffe.proto.files import read_weights, write_binary

    message = read_weights(path)
    for layer in message.layer:
        for blob in layer.blobs:
            blob.CopyFrom(to_blobproto(from_blobproto(blob, "") * 0.5))
    write_binary(path, message)


def said_by(run: Path, trained: TrainedNet) -> tuple[list[str], np.ndarray]:
    weights = run / "averaged.caffemodel" if (run / "averaged.caffemodel").exists() else run / "best.caffemodel"
    net = load(trained.deploy, weights, trained.mean, trained.databases / "labels.txt")
    paths, _, probabilities = predictions(net, trained.databases / "train_lmdb")
    return paths, probabilities


def read_answers(path: Path) -> tuple[list[str], np.ndarray]:
    with open(path, newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["key", *LABELS]
    return [row[0].split("_", 1)[1] for row in rows], np.array([[float(value) for value in row[1:]] for row in rows])


def test_several_teachers_give_their_mean(trained: TrainedNet, runs: list[Path], tmp_path: Path) -> None:
    answers(trained.databases, tmp_path / "answers.csv", runs)
    paths, first = said_by(runs[0], trained)
    second = said_by(runs[1], trained)[1]
    assert np.abs(first - second).max() > 0.01
    same_paths, mean = read_answers(tmp_path / "answers.csv")
    assert same_paths == paths
    np.testing.assert_allclose(mean, (first + second) / 2, atol=1e-5)


def test_a_temperature_flattens(trained: TrainedNet, runs: list[Path], tmp_path: Path) -> None:
    answers(trained.databases, tmp_path / "answers.csv", runs[:1], temperature=2)
    roots = np.sqrt(said_by(runs[0], trained)[1])
    flattened = read_answers(tmp_path / "answers.csv")[1]
    np.testing.assert_allclose(flattened, roots / roots.sum(axis=1, keepdims=True), atol=1e-5)
    with pytest.raises(InputError, match="temperature 0"):
        answers(trained.databases, tmp_path / "answers.csv", runs[:1], temperature=0)


def test_out_of_fold_each_teacher_answers_on_its_own_fold(
    trained: TrainedNet, runs: list[Path], tmp_path: Path
) -> None:
    answers(trained.databases, tmp_path / "answers.csv", runs, manifest_path=trained.manifest)
    folds = {row.path: fold_of(row.sha256, 2) for row in manifest.read(trained.manifest)}
    said = [said_by(run, trained)[1] for run in runs]
    paths, found = read_answers(tmp_path / "answers.csv")
    assert {folds[path] for path in paths} == {0, 1}
    for number, (path, row) in enumerate(zip(paths, found, strict=True)):
        np.testing.assert_allclose(row, said[folds[path]][number], atol=1e-5)


def test_a_manifest_of_other_images_is_refused(trained: TrainedNet, runs: list[Path], tmp_path: Path) -> None:
    rows = manifest.read(trained.manifest)
    manifest.write(tmp_path / "manifest.csv", rows[1:], manifest.COLUMNS)
    with pytest.raises(InputError, match="no row of Training/"):
        answers(trained.databases, tmp_path / "answers.csv", runs, manifest_path=tmp_path / "manifest.csv")
    assert not (tmp_path / "answers.csv").exists()


def test_where_the_databases_are_gone_the_mean_is_the_exported_models(tmp_path: Path) -> None:
    named, exported = tmp_path / "databases.binaryproto", tmp_path / "model/mean.binaryproto"
    layer = f'layer {{ name: "data" type: "Data" top: "data" transform_param {{ mean_file: "{named}" }} }}'
    (tmp_path / "train_val.prototxt").write_text(layer)
    assert find_mean(tmp_path) == named  # an error then names the file that the run named
    exported.parent.mkdir()
    exported.touch()
    assert find_mean(tmp_path) == exported
    named.touch()
    assert find_mean(tmp_path) == named
