"""predict: faces found and read, in Python and on the command line; what cannot be read is told, the rest goes on."""

import csv
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from matplotlib.cbook import get_sample_data
from PIL import Image
from small_set import noise
from trained_net import make_trained_net

from pipeline import model_folder
from pipeline.faces.alignment import align_face
from pipeline.faces.detector import Detections, build_detector
from pipeline.fer.labels import LABELS
from pipeline.live.frames import Frame
from pipeline.live.readings import Reading
from pipeline.live.sources import read_image
from pipeline.model_folder import Classifier, ModelError
from pipeline.predict import SHIPPED_MODEL, Predictor, _batches

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    make_trained_net(noise(40), folder).export(folder / "model")
    return folder / "model"


@pytest.fixture(scope="module")
def portrait() -> np.ndarray:
    """A photograph of one face, (600, 512, 3): it comes with matplotlib."""
    with get_sample_data("grace_hopper.jpg") as file:
        return np.asarray(Image.open(file).convert("RGB"))


@pytest.fixture(scope="module")
def predictor(model: Path) -> Predictor:
    return Predictor(model_folder.read(model), build_detector("mtcnn", threads=1))


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipeline", "predict", *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip


def lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def test_one_face_is_found_and_read_as_alignment_and_net_have_it(
    predictor: Predictor, model: Path, portrait: np.ndarray
) -> None:
    (reading,) = predictor.read([Frame("portrait", portrait)])
    (face,) = reading.faces
    assert (reading.width, reading.height, face.status) == (512, 600, "found")
    left, top, right, bottom = face.box
    assert (left, top, right, bottom) == pytest.approx((178, 110, 351, 330), abs=30)
    assert left < face.landmarks["left_eye"][0] < face.landmarks["nose"][0] < face.landmarks["right_eye"][0] < right
    assert sum(face.probabilities.values()) == pytest.approx(1, abs=1e-5)
    assert face.label == max(face.probabilities, key=lambda label: face.probabilities[label])
    (found,) = build_detector("mtcnn", threads=1).detect([portrait])
    aligned = align_face(portrait, found.boxes[0], found.landmarks[0])
    by_hand = Classifier(model_folder.read(model))(aligned[None, None])[0]
    np.testing.assert_allclose(list(face.probabilities.values()), by_hand, atol=1e-6)


def test_several_faces_come_from_the_largest_to_the_smallest(predictor: Predictor, portrait: np.ndarray) -> None:
    small = np.asarray(Image.fromarray(portrait).resize((256, 300)))
    both = np.full((600, 800, 3), 127, np.uint8)
    both[100:400, :256] = small
    both[:, 288:] = portrait
    (reading,) = predictor.read([Frame("both", both)])
    widths = [face.box[2] - face.box[0] for face in reading.faces]
    assert len(widths) == 2
    assert widths[0] > 1.5 * widths[1]


def test_a_reading_does_not_hang_on_the_other_frames(predictor: Predictor, portrait: np.ndarray) -> None:
    frames = [Frame("mirrored", portrait[:, ::-1].copy()), Frame("plain", np.zeros((90, 70, 3), np.uint8)),
              Frame("portrait", portrait)]  # fmt: skip
    together = predictor.read(frames)
    (alone,) = predictor.read(frames[2:])
    assert [len(reading.faces) for reading in together] == [1, 0, 1]
    assert together[2].faces[0].box == alone.faces[0].box
    assert list(together[2].faces[0].probabilities.values()) == pytest.approx(
        list(alone.faces[0].probabilities.values()), abs=1e-6
    )


def test_an_image_without_a_face_has_none_or_is_read_whole(predictor: Predictor, model: Path) -> None:
    plain = Frame("plain", np.full((90, 70, 3), 127, np.uint8))
    assert predictor.read([plain]) == [Reading("plain", 70, 90, ())]
    whole = Predictor(model_folder.read(model), build_detector("mtcnn", threads=1), no_face="whole")
    (face,) = whole.read([plain])[0].faces
    assert (face.status, face.score, face.box, face.landmarks) == ("whole", None, (0, 0, 69, 89), {})


def test_boxes_beyond_the_edge_are_read(model: Path, portrait: np.ndarray) -> None:
    class Edge:
        def detect(self, images: Sequence[np.ndarray]) -> list[Detections]:
            boxes = np.array([[-40, -30, 120, 200], [450, 500, 600, 700]], np.float32)
            return [Detections(boxes, np.ones(2, np.float32), np.full((2, 5, 2), np.nan, np.float32)) for _ in images]

    (reading,) = Predictor(model_folder.read(model), Edge()).read([Frame("portrait", portrait)])
    assert [face.landmarks for face in reading.faces] == [{}, {}]


def test_batches_keep_order_and_bounds() -> None:
    sides = [10] * 100 + [3000] + [1000] * 3 + [10]
    frames = [Frame(str(i), np.empty((side, side, 3), np.uint8)) for i, side in enumerate(sides)]
    batches = list(_batches(frames))
    assert [frame.name for batch in batches for frame in batch] == [str(i) for i in range(len(sides))]
    assert [len(batch) for batch in batches] == [64, 36, 1, 2, 2]


def test_the_command_writes_lines_table_and_pictures(model: Path, portrait: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Image.fromarray(portrait).save(tmp_path / "in/a portrait é.png")
    Image.fromarray(noise(1)[0]).save(tmp_path / "in/noise.png")
    done = command(tmp_path / "in", "--model", model, "--csv", tmp_path / "out.csv", "--annotated", tmp_path / "drawn")
    assert done.returncode == 0, done.stderr
    first, second = lines(done.stdout)
    assert first["file"].endswith("a portrait é.png")
    assert len(first["faces"]) == 1
    assert second["faces"] == []
    assert "2 images, 1 faces, 1 images without a face" in done.stderr
    with open(tmp_path / "out.csv", newline="") as file:
        assert [row["status"] for row in csv.DictReader(file)] == ["found", "none"]
    assert sorted(path.name for path in (tmp_path / "drawn").iterdir()) == ["a portrait é.png", "noise.png"]
    assert not np.array_equal(read_image(tmp_path / "drawn/a portrait é.png"), portrait)


def test_unreadable_images_are_told_and_end_in_failure(model: Path, portrait: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(portrait).save(tmp_path / "a.jpg")
    (tmp_path / "b.jpg").write_bytes(b"")
    (tmp_path / "c.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:5000])
    Image.fromarray(portrait).save(tmp_path / "d.jpg")
    done = command(tmp_path, "--model", model, "--json", tmp_path / "out.jsonl")
    assert done.returncode == 1
    assert done.stdout == ""
    assert [Path(line["file"]).name for line in lines((tmp_path / "out.jsonl").read_text())] == ["a.jpg", "d.jpg"]
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "b.jpg: an empty file" in errors[0]
    assert "c.jpg" in errors[1]
    assert "2 of 4 images could not be read" in errors[2]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{folder}/empty", "--model", "{model}"], "empty: no image in this folder"),
        (["{folder}/absent.png", "--model", "{model}"], "absent.png: no such file"),
        (["{model}", "--model", "{folder}/empty"], "no image in this folder"),
        (["{folder}/face.png", "--model", "{folder}/empty"], "empty: no model.json inside"),
    ],
)
def test_nothing_to_read_or_to_read_with_is_one_clear_line(
    model: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    (tmp_path / "empty").mkdir()
    Image.fromarray(noise(1)[0]).save(tmp_path / "face.png")
    done = command(*(argument.format(folder=tmp_path, model=model) for argument in arguments))
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1


def test_a_model_of_other_faces_is_refused(model: Path) -> None:
    folder = model_folder.read(model)
    other = model_folder.ModelFolder(
        folder.path, "other", "1", folder.labels, model_folder.Preprocessing(3, 64, 64, 0, 1.0, "aligned"), 1.0
    )
    with pytest.raises(ModelError, match=r"takes faces of shape \(3, 64, 64\)"):
        Predictor(other, build_detector("none"))


def test_neither_torch_nor_what_only_training_needs_is_imported(model: Path, tmp_path: Path) -> None:
    Image.fromarray(noise(1)[0]).save(tmp_path / "noise.png")
    program = (
        "import sys; from pathlib import Path; from pipeline.predict import predict; "
        "predict([sys.argv[1]], Path(sys.argv[2]), no_face='whole'); "
        "print(sorted({'torch', 'sklearn', 'scipy', 'matplotlib', 'pandas', 'onnx', 'lmdb'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path), str(model)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.skipif(not SHIPPED_MODEL.exists(), reason="models/face_emotion_net is not there")
def test_the_model_that_ships_is_whole_small_and_finds_the_portrait_calm(portrait: np.ndarray) -> None:
    assert sum(path.stat().st_size for path in SHIPPED_MODEL.iterdir()) <= 10_000_000
    folder = model_folder.read(SHIPPED_MODEL)
    assert set(folder.labels) == set(LABELS)
    (reading,) = Predictor(folder, build_detector("mtcnn", threads=1)).read([Frame("portrait", portrait)])
    (face,) = reading.faces
    assert face.probabilities["surprise"] + face.probabilities["fear"] < 0.5
