"""Classes of a person's own, however many and whatever they are called, from folders to all that is drawn of them."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.trained_net import TrainedNet, write_deploy, write_weights

from pipeline.classifier import model_folder
from pipeline.data.manifest import read_labels
from pipeline.drawing.emoji import UNKNOWN, name_of
from pipeline.drawing.overlay import Overlay, Parts
from pipeline.drawing.palette import colours, ink
from pipeline.media.frames import Frame
from pipeline.media.sinks import Csv
from pipeline.media.sinks.timeline_plot import Summary
from pipeline.predictor import Predictor
from pipeline.stages.extract import extract
from pipeline.stages.lmdb import lmdb
from pipeline.stages.mean import mean

SETS = {
    "three": ("joie", "rien à dire", "z" * 60),
    "eight": ("1", "2", "3", "4", "5", "6", "7", "喜び"),
    "twenty": tuple(f"mood {number}" for number in range(20)),
    "known and own": ("happy", "bored", "sad"),
}


@pytest.fixture(scope="module", params=SETS)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with metrics.json and the model of a net of random weights, all made from class folders."""
    folder = tmp_path_factory.mktemp("own")
    labels = SETS[request.param]
    random = np.random.RandomState(0)
    for label in labels:
        (folder / "pictures" / label).mkdir(parents=True)
        for number in range(10):
            image = random.randint(0, 256, (48, 48)).astype(np.uint8)
            assert cv2.imwrite(str(folder / "pictures" / label / f"{number}.png"), image)
    extract(folder / "pictures", folder / "images")
    assert set(read_labels(folder / "images/labels.txt")) == set(labels)
    lmdb(folder / "images/manifest.csv", folder / "databases", "kaggle", seed=1)
    mean(folder / "databases/train_lmdb", folder / "databases/mean.binaryproto")
    deploy = write_deploy(folder / "deploy.prototxt", classes=len(labels))
    net = TrainedNet(
        deploy,
        write_weights(deploy, folder / "weights.caffemodel"),
        folder / "databases",
        folder / "databases/mean.binaryproto",
        folder / "images/manifest.csv",
    )
    net.evaluate(folder)
    net.export(folder / "model", metrics=folder / "metrics.json")
    return folder


def test_a_model_of_own_classes_reads_and_everything_is_drawn(trained: Path, tmp_path: Path) -> None:
    labels = model_folder.read(trained / "model").labels
    assert (trained / "confusion.png").stat().st_size > 0
    predictor = Predictor(trained / "model", detector="none", uncertain=0)
    image = np.random.RandomState(1).randint(0, 256, (300, 400, 3)).astype(np.uint8)
    session = predictor.session()
    frame = Frame("film.mp4", image, 0, 0.0)
    reading = session.read(frame)
    (face,) = reading.faces
    assert tuple(face.probabilities) == labels
    assert sum(face.probabilities.values()) == pytest.approx(1, abs=1e-4)
    for faces in ("all", "single"):
        drawn = Overlay(Parts(faces=faces)).draw(image, reading)
        assert not np.array_equal(drawn[:300, :400], image)
    with Csv(tmp_path / "table.csv", labels) as table, Summary(tmp_path / "summary.png", Parts()) as summary:
        for sink in (table, summary):
            sink.write(frame, reading)
    header = (tmp_path / "table.csv").read_text(encoding="utf-8").splitlines()[0]
    assert all(f"probability_{label}" in header for label in labels)
    assert (tmp_path / "summary.png").stat().st_size > 0


@pytest.mark.parametrize("labels", SETS.values(), ids=SETS)
def test_every_label_has_a_colour_of_its_own_and_an_emoji(labels: tuple[str, ...]) -> None:
    found = colours(labels)
    assert set(found) == set(labels)
    assert len(set(found.values())) == len(labels)
    assert {ink(colour) for colour in found.values()} <= {"#000000", "#FFFFFF"}
    assert {name_of(label) for label in labels} <= {UNKNOWN, "happy", "sad"}
