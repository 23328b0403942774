"""ensemble: one graph gives the mean of its members' probabilities, whatever each does to an image."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.small_set import noise
from helpers.trained_net import TrainedNet, make_trained_net, write_deploy, write_weights

from pipeline.base.errors import InputError
from pipeline.base.hashing import sha256
from pipeline.caffe.database import DatabaseReader, datum_to_array
from pipeline.classifier.model_folder import Classifier, read
from pipeline.predictor import Predictor
from pipeline.stages.ensemble import EnsembleError, ensemble


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> TrainedNet:
    return make_trained_net(noise(40), tmp_path_factory.mktemp("trained"))


Export = Callable[..., str]


@pytest.fixture
def export(trained: TrainedNet, tmp_path: Path) -> Export:
    """Export a net of another seed, crop or scale under a name; return the folder."""

    def made(name: str, *, crop: int = 42, factor: float = 1.0, scale: float = 1.0, **options: object) -> str:
        deploy = write_deploy(tmp_path / f"{name}.prototxt", crop=crop, scale=scale)
        weights = write_weights(deploy, tmp_path / f"{name}.caffemodel", factor)
        trained.export(tmp_path / name, deploy=deploy, weights=weights, **options)
        return str(tmp_path / name)

    return made


def held_out(trained: TrainedNet) -> np.ndarray:
    with DatabaseReader(trained.databases / "val_lmdb") as reader:
        return np.stack([datum_to_array(datum, "it") for _, datum in reader])


def join(trained: TrainedNet, models: list[str], output: Path, **options: Any) -> dict:
    return ensemble(models, output, databases=trained.databases, manifest_path=trained.manifest, **options)


@pytest.mark.parametrize("other", [{}, {"crop": 40}, {"scale": 0.5}, {"crop": 46, "scale": 0.25, "precision": "int8"}])
def test_it_gives_the_mean_of_its_members(
    trained: TrainedNet, export: Export, tmp_path: Path, other: dict[str, object]
) -> None:
    models = [export("one"), export("two", factor=-0.5, **other)]
    index = join(trained, models, tmp_path / "five")
    images = held_out(trained)
    alone = [Classifier(read(Path(model)))(images) for model in models]
    assert np.abs(alone[0] - alone[1]).max() > 0.01
    joint = read(tmp_path / "five/model")
    raw = Classifier(replace(joint, temperature=1.0, class_prior=0.0))
    np.testing.assert_allclose(raw(images), np.mean(alone, axis=0), atol=1e-5)
    assert [member["name"] for member in index["members"]] == ["Small", "Small"]
    assert index["faces_seen"] == ["aligned"]
    metrics = json.loads((tmp_path / "five/metrics.json").read_text())
    accuracy = (np.mean(alone, axis=0).argmax(axis=1) == labels(trained)).mean()
    assert metrics["val"]["accuracy"] == pytest.approx(accuracy)
    assert (joint.temperature, joint.class_prior) == (metrics["temperature"], metrics["class_prior"])
    assert "the mean of 2 nets: Small, Small" in (tmp_path / "five/model/MODEL_CARD.md").read_text()
    assert (tmp_path / "five/confusion.png").exists()


def test_it_has_learned_the_mean_of_its_members_shares(
    trained: TrainedNet, export: Export, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain = trained.evaluate(tmp_path / "plain")
    weighted = trained.evaluate(tmp_path / "weighted", class_weights=["angry=9"])
    assert weighted["training_shares"]["angry"] > plain["training_shares"]["angry"] + 0.2
    one = export("one", metrics=tmp_path / "weighted/metrics.json")
    two = export("two", factor=2, metrics=tmp_path / "weighted/metrics.json")
    three = export("three", factor=3)
    assert join(trained, [one, two], tmp_path / "same")["training_shares"] == pytest.approx(weighted["training_shares"])
    assert "no training_shares" not in caplog.text
    mixed = join(trained, [one, three], tmp_path / "mixed")["training_shares"]
    shares = [metrics["training_shares"] for metrics in (plain, weighted)]
    assert mixed == pytest.approx({label: (shares[0][label] + shares[1][label]) / 2 for label in shares[0]})
    assert "three/model.json: no training_shares, so it is taken to have learned" in caplog.text


def labels(trained: TrainedNet) -> np.ndarray:
    with DatabaseReader(trained.databases / "val_lmdb") as reader:
        return np.array([datum.label for _, datum in reader])


def test_it_reads_faces_as_any_model(trained: TrainedNet, export: Export, tmp_path: Path, portrait: np.ndarray) -> None:
    join(trained, [export("one"), export("two", factor=2)], tmp_path / "both", views=10)
    (face,) = Predictor(tmp_path / "both/model", views=10)(portrait).faces
    assert sum(face.probabilities.values()) == pytest.approx(1, abs=1e-5)


def test_what_cannot_be_joined_is_refused(trained: TrainedNet, export: Export, tmp_path: Path) -> None:
    one = export("one")
    images = export("images", faces="images")
    eight = read(Path(one))
    (tmp_path / "eight").mkdir()
    for path in eight.path.iterdir():
        (tmp_path / "eight" / path.name).write_bytes(path.read_bytes())
    text = (tmp_path / "eight/labels.txt").read_text().replace("angry", "cross")
    (tmp_path / "eight/labels.txt").write_text(text)
    index = json.loads((tmp_path / "eight/model.json").read_text())
    index["sha256"]["labels.txt"] = sha256(tmp_path / "eight/labels.txt")
    (tmp_path / "eight/model.json").write_text(json.dumps(index))
    cases = (
        ([one], "one model alone, where two or more"),
        ([one, str(tmp_path / "eight")], r"eight: labels cross, .* where .*labels.txt has angry"),
        ([one, images], r"images: takes images faces of shape \(1, 48, 48\) where .*one takes aligned ones"),
        ([one, "nobody"], "model nobody: no model of that name"),
    )
    for models, message in cases:
        with pytest.raises(InputError, match=message):
            join(trained, models, tmp_path / "out")
        assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="one: learned from aligned faces, where this run reads whole images"):
        join(trained, [one, one], tmp_path / "out", train_on="both")
    different = export("different", crop=40)
    with pytest.raises(InputError, match="views 10: the net takes whole images"):
        join(trained, [one, different], tmp_path / "out", views=10)
    assert not (tmp_path / "out/model").exists()


def test_a_graph_that_answers_otherwise_is_not_written(
    trained: TrainedNet, export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = [export("one"), export("two", factor=-1)]
    right = ensemble.__globals__["join"]
    monkeypatch.setitem(ensemble.__globals__, "join", lambda members: right(members[:1] * 2))
    with pytest.raises(EnsembleError, match="the joint graph differs from its members by"):
        join(trained, models, tmp_path / "out")
    assert not (tmp_path / "out/model").exists()
