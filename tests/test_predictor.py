"""Predictor: every kind of picture is read alike, boxes may be given, faces keep their number in a moving picture."""

import base64
import io
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.base.errors import InputError
from pipeline.base.hashing import sha256
from pipeline.classifier import model_folder
from pipeline.classifier.model_folder import Classifier, ModelError
from pipeline.faces.alignment import align_face
from pipeline.faces.detector import Detections, build_detector
from pipeline.faces.tracking import FRAME_TIME, Tracked
from pipeline.media.frames import Frame
from pipeline.predictor import SMOOTHING, Predictor, Session
from pipeline.readings import Reading, columns, to_dataframe


@pytest.fixture(scope="module")
def predictor(model: Path) -> Predictor:
    return Predictor(model)


@pytest.fixture(scope="module")
def png(portrait: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(portrait).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def address(png: bytes) -> Iterator[str]:
    """Of a server with one picture, /face.png."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = self.path == "/face.png"
            self.send_response(200 if found else 404)
            self.send_header("Content-Length", str(len(png) if found else 0))
            self.end_headers()
            if found:
                self.wfile.write(png)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class Still:
    """Finds the same boxes in every frame."""

    def __init__(self, *boxes: Sequence[float]) -> None:
        self.boxes = np.array(boxes, np.float32).reshape(-1, 4)

    def detect(self, images: Sequence[np.ndarray]) -> list[Detections]:
        count = len(self.boxes)
        nowhere = np.full((count, 5, 2), np.nan, np.float32)
        return [Detections(self.boxes, np.ones(count, np.float32), nowhere) for _ in images]


def values(reading: Reading) -> list[float]:
    (face,) = reading.faces
    return list(face.probabilities.values())


def test_one_face_is_found_and_read_as_alignment_and_net_have_it(
    predictor: Predictor, model: Path, portrait: np.ndarray
) -> None:
    reading = predictor(portrait)
    (face,) = reading.faces
    assert (reading.width, reading.height, face.status, face.track) == (512, 600, "found", None)
    left, top, right, bottom = face.box
    assert (left, top, right, bottom) == pytest.approx((178, 110, 351, 330), abs=30)
    assert left < face.landmarks["left_eye"][0] < face.landmarks["nose"][0] < face.landmarks["right_eye"][0] < right
    assert sum(face.probabilities.values()) == pytest.approx(1, abs=1e-5)
    assert face.label == max(face.probabilities, key=lambda label: face.probabilities[label])
    (found,) = build_detector("mtcnn", threads=1).detect([portrait])
    aligned = align_face(portrait, found.boxes[0], found.landmarks[0])
    by_hand = Classifier(model_folder.read(model))(aligned[None, None])[0]
    np.testing.assert_allclose(values(reading), by_hand, atol=1e-6)


def test_every_kind_of_picture_is_read_alike(
    predictor: Predictor, portrait: np.ndarray, png: bytes, address: str, tmp_path: Path
) -> None:
    path = tmp_path / "a face.png"
    path.write_bytes(png)
    expected = values(predictor(portrait))
    pictures: dict[str, Any] = {
        "path": path,
        "name": str(path),
        "data URL": "data:image/png;base64," + base64.b64encode(png).decode(),
        "URL": f"{address}/face.png",
        "PIL": Image.fromarray(portrait),
        "PIL with alpha": Image.fromarray(portrait).convert("RGBA"),
        "bytes": png,
        "file object": io.BytesIO(png),
        "base64 text": base64.b64encode(png).decode(),
        "floats": portrait / 255,
    }
    for kind, picture in pictures.items():
        np.testing.assert_allclose(values(predictor(picture)), expected, atol=1e-6, err_msg=kind)
    bgr = predictor(np.ascontiguousarray(portrait[:, :, ::-1]), channels="BGR")
    np.testing.assert_allclose(values(bgr), expected, atol=1e-6)
    pictures["file object"] = io.BytesIO(png)
    together = predictor(list(pictures.values()))
    assert [reading.file for reading in together[:2]] == [str(path)] * 2
    assert [reading.frame for reading in together] == list(range(len(pictures)))
    np.testing.assert_allclose([values(reading) for reading in together], [expected] * len(pictures), atol=1e-6)
    grey = np.asarray(Image.fromarray(portrait).convert("L"))
    np.testing.assert_allclose(values(predictor(grey)), values(predictor(np.dstack([grey] * 3))), atol=1e-6)
    assert predictor([]) == []


def test_several_pictures_come_as_a_tuple_a_generator_or_a_batch(
    predictor: Predictor, portrait: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many are read at once: a generator is not taken further ahead."""
    monkeypatch.setattr("pipeline.predictor.BATCH", 2)
    mirrored = portrait[:, ::-1]
    one_by_one = [predictor(picture) for picture in (portrait, mirrored, portrait)]
    expected = [values(reading) for reading in one_by_one]
    taken = []

    def pictures() -> Generator[np.ndarray, None, None]:
        for number, picture in enumerate((portrait, mirrored, portrait)):
            taken.append(number)
            yield picture

    read = predictor.read
    seen = []

    def watched(frames: Sequence[Frame]) -> list[Reading]:
        seen.append(len(taken))
        return read(frames)

    monkeypatch.setattr(predictor, "read", watched)
    for several in ((portrait, mirrored, portrait), pictures(), np.stack([portrait, mirrored, portrait])):
        readings = predictor(several)
        assert [reading.file for reading in readings] == ["picture 0", "picture 1", "picture 2"]
        np.testing.assert_allclose([values(reading) for reading in readings], expected, atol=1e-6)
    assert 2 in seen
    boxes = [[reading.faces[0].box] for reading in one_by_one]
    assert [reading.faces[0].status for reading in predictor(pictures(), boxes=boxes)] == ["given"] * 3
    with pytest.raises(ValueError, match="boxes of 3 pictures where 2 were given"):
        predictor([portrait, mirrored], boxes=boxes)


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (np.zeros((4, 4, 5), np.uint8), r"picture 0: uint8 \(4, 4, 5\) where \(H, W\), \(H, W, 3\)"),
        (7, "picture 0: int where a path, URL"),
        ("absent.png", r"absent\.png"),
        ("data:image/png;base64,AAAA", "data URL 0"),
        ("data:image/png;base64,?", "data URL 0"),
    ],
)
def test_what_is_no_picture_is_named(predictor: Predictor, picture: Any, message: str) -> None:
    with pytest.raises((ValueError, InputError, OSError), match=message):
        predictor(picture)


def test_a_wrong_order_of_channels_is_refused(predictor: Predictor, portrait: np.ndarray) -> None:
    with pytest.raises(ValueError, match="channels 'GRB' where RGB or BGR"):
        predictor(portrait, channels="GRB")


def test_a_url_that_gives_nothing_is_an_error_without_its_password(predictor: Predictor, address: str) -> None:
    with pytest.raises(InputError, match="404") as caught:
        predictor(address.replace("//", "//user:secret@") + "/absent.png")
    assert "secret" not in str(caught.value)


def test_several_faces_come_from_the_largest_to_the_smallest(predictor: Predictor, portrait: np.ndarray) -> None:
    small = np.asarray(Image.fromarray(portrait).resize((256, 300)))
    both = np.full((600, 800, 3), 127, np.uint8)
    both[100:400, :256] = small
    both[:, 288:] = portrait
    widths = [face.box[2] - face.box[0] for face in predictor(both).faces]
    assert len(widths) == 2
    assert widths[0] > 1.5 * widths[1]


def test_a_reading_does_not_hang_on_the_other_frames(predictor: Predictor, portrait: np.ndarray) -> None:
    together = predictor([portrait[:, ::-1], np.zeros((90, 70, 3), np.uint8), portrait])
    alone = predictor(portrait)
    assert [len(reading.faces) for reading in together] == [1, 0, 1]
    assert together[2].faces[0].box == alone.faces[0].box
    np.testing.assert_allclose(values(together[2]), values(alone), atol=1e-6)


def test_an_image_without_a_face_has_none_or_is_read_whole(predictor: Predictor, model: Path) -> None:
    plain = Frame("plain", np.full((90, 70, 3), 127, np.uint8))
    assert predictor.read([plain]) == [Reading("plain", 70, 90, ())]
    (face,) = Predictor(model, no_face="whole").read([plain])[0].faces
    assert (face.status, face.score, face.box, face.landmarks) == ("whole", None, (0, 0, 69, 89), {})
    assert Predictor(model, no_face="whole")(plain.image, boxes=np.empty((0, 4))).faces == ()
    refused: dict[str, Any] = {"no_face": "all", "uncertain": 2, "min_face": 0, "threads": 0}
    for option, value in refused.items():
        with pytest.raises(ValueError, match=f"{option} .* where"):
            Predictor(model, **{option: value})
    with pytest.raises(ValueError, match="uncertain 50 where 0 to 1 was expected"):
        Predictor(str(model), uncertain=50)


def test_boxes_known_beforehand_are_aligned_and_read(predictor: Predictor, portrait: np.ndarray) -> None:
    found = predictor(portrait)
    given = predictor(portrait, boxes=np.array([found.faces[0].box]))
    (face,) = given.faces
    assert (face.status, face.score) == ("given", None)
    assert set(face.landmarks) == set(found.faces[0].landmarks)
    np.testing.assert_allclose(list(face.landmarks.values()), list(found.faces[0].landmarks.values()), atol=6)
    np.testing.assert_allclose(values(given), values(found), atol=0.1)
    several = predictor([portrait, portrait], boxes=[np.array([found.faces[0].box]), np.empty((0, 4))])
    assert [len(reading.faces) for reading in several] == [1, 0]


def test_a_box_at_the_edge_is_clipped_and_one_outside_is_refused(predictor: Predictor, portrait: np.ndarray) -> None:
    (face,) = predictor(portrait, boxes=np.array([[-40, -30, 120, 200]])).faces
    assert face.box == (0, 0, 120, 200)
    assert "edge" in face.conditions
    for boxes in ([[600, 10, 700, 90]], [[10, 10, 5, 90]], [[np.nan, 0, 1, 1]]):
        with pytest.raises(ValueError, match=r"picture 0: boxes .* 512x600"):
            predictor(portrait, boxes=np.array(boxes))
    with pytest.raises(ValueError, match=r"picture 0: boxes of shape \(1, 3\) where \(n, 4\)"):
        predictor(portrait, boxes=np.array([[1, 2, 3]]))
    with pytest.raises(ValueError, match="boxes of 1 pictures where at least 2"):
        predictor([portrait, portrait], boxes=[np.empty((0, 4))])


def test_a_face_below_the_threshold_is_uncertain(model: Path, portrait: np.ndarray, predictor: Predictor) -> None:
    top = max(values(predictor(portrait)))
    marked = [Predictor(model, uncertain=at)(portrait).faces[0].uncertain for at in (top - 0.01, top + 0.01)]
    assert marked == [False, True]


def test_several_threads_read_at_once(predictor: Predictor, portrait: np.ndarray) -> None:
    pictures = [portrait, portrait[:, ::-1].copy(), portrait[::2, ::2].copy(), np.zeros((50, 60, 3), np.uint8)] * 3
    one_by_one = [predictor(picture) for picture in pictures]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(predictor, pictures)) == one_by_one


def test_a_face_keeps_its_number_while_it_moves(predictor: Predictor, portrait: np.ndarray) -> None:
    session = predictor.session(every=0.2)
    background = np.full((600, 900, 3), 60, np.uint8)
    for number in range(24):
        image = background.copy()
        image[:, 8 * number : 8 * number + 512] = portrait
        (face,) = session.read(Frame("film", image, number, number / 25)).faces
        assert face.track == 1
        assert face.box[0] == pytest.approx(8 * number + 178, abs=35)
    assert predictor.session().read(Frame("other", background)).faces == ()


def test_probabilities_are_smoothed_by_the_time_that_passed(model: Path, portrait: np.ndarray) -> None:
    class Turns:
        """A classifier whose answer changes with the picture's brightness."""

        def __call__(self, faces: np.ndarray) -> np.ndarray:
            bright = (faces.mean(axis=(1, 2, 3)) > 127)[:, None]
            return np.where(bright, np.eye(7, dtype=np.float32)[0], np.eye(7, dtype=np.float32)[1])

    predictor = Predictor(model, detector=Still((100, 100, 400, 400)))
    predictor.classifier = Turns()  # type: ignore[assignment]
    session = predictor.session(every=0)
    dark, bright = (np.full((600, 512, 3), grey, np.uint8) for grey in (20, 230))
    start = session.read(Frame("film", dark, 0, 0.0))
    after = session.read(Frame("film", bright, 1, SMOOTHING))
    assert values(start)[:2] == [0, 1]
    assert values(after)[:2] == pytest.approx([1 - np.exp(-1), np.exp(-1)])
    assert sum(values(after)) == pytest.approx(1)
    untimed = predictor.session(every=0)
    untimed.read(Frame("film", dark, 0))
    weight = np.exp(-2 * FRAME_TIME / SMOOTHING)
    assert values(untimed.read(Frame("film", bright, 2)))[:2] == pytest.approx([1 - weight, weight])


def scripted(model: Path, *answers: Sequence[float]) -> Predictor:
    """A Predictor whose classifier gives these seven probabilities, a row a face, one after the other."""
    rows = iter(answers)
    predictor = Predictor(model, detector=Still((100, 100, 400, 400)))
    predictor.classifier = lambda faces: np.array([next(rows) for _ in faces], np.float32)  # type: ignore[assignment]
    return predictor


def test_a_face_read_with_half_is_not_uncertain_and_with_less_is(model: Path, portrait: np.ndarray) -> None:
    half, less = [0.5, 0.25, 0.25, 0, 0, 0, 0], [0.499, 0.251, 0.25, 0, 0, 0, 0]
    predictor = scripted(model, half, less)
    assert [predictor(portrait).faces[0].uncertain for _ in range(2)] == [False, True]


@pytest.mark.parametrize(("seconds", "remembered"), [(1.9, True), (2.0, False), (2.1, False)])
def test_a_face_that_is_away_for_two_seconds_is_no_longer_smoothed(
    model: Path, portrait: np.ndarray, seconds: float, remembered: bool
) -> None:
    class Returns:
        """A tracker that sees face 1 in the first frame and the third."""

        def __init__(self) -> None:
            boxes = np.array([[100, 100, 400, 400]], np.float32)
            face = Detections(boxes, np.ones(1, np.float32), np.full((1, 5, 2), np.nan, np.float32))
            there, away = Tracked(face, np.array([1])), Tracked(Detections.none(), np.empty(0, np.int64))
            self.frames = iter([there, away, there])

        def update(self, image: np.ndarray, time: float | None) -> Tracked:
            return next(self.frames)

    angry, happy = np.eye(7)[0], np.eye(7)[3]
    session = Session(scripted(model, angry, happy), Returns())  # type: ignore[arg-type]
    session.read(Frame("film", portrait, 0, 0.0))
    assert session.read(Frame("film", portrait, 1, seconds)).faces == ()
    weight = np.exp(-seconds / 0.3) if remembered else 0
    assert values(session.read(Frame("film", portrait, 2, seconds)))[0] == pytest.approx(weight, abs=1e-6)


def test_no_boxes_are_no_faces(predictor: Predictor, portrait: np.ndarray) -> None:
    assert predictor(portrait, boxes=[]).faces == ()
    assert [reading.faces for reading in predictor([portrait, portrait], boxes=[[], np.empty((0, 4))])] == [(), ()]
    with pytest.raises(ValueError, match=r"boxes of shape \(4,\)"):
        predictor(portrait, boxes=[1, 2, 3, 4])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork processes")
@pytest.mark.parametrize("threads", [1, 2])
def test_a_fork_reads_or_says_why_not(model: Path, portrait: np.ndarray, threads: int) -> None:
    """With threads, which the fork has not, it would hang."""
    program = (
        "import os, sys\nfrom pipeline.predictor import Predictor\n"
        f"predictor = Predictor(sys.argv[1], threads={threads})\n"
        "import numpy as np\nimage = np.zeros((80, 80, 3), np.uint8)\n"
        "predictor(image)\nchild = os.fork()\n"
        "if child == 0:\n"
        "    try:\n        predictor(image)\n        predictor.session().read\n        os._exit(0)\n"
        "    except RuntimeError as error:\n        os._exit(7 if 'forked' in str(error) else 8)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(model)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.strip() == {1: "0", 2: "7"}[threads], done.stderr


def test_smaller_faces_are_looked_for_in_images_than_in_films(model: Path, portrait: np.ndarray) -> None:
    small = np.full((400, 400, 3), 90, np.uint8)
    small[50:101, 50:94] = np.asarray(Image.fromarray(portrait).resize((44, 51), Image.Resampling.BOX))  # a face of 15
    predictor = Predictor(model)
    assert len(predictor(small).faces) == 1
    assert predictor.session().read(Frame("film", small)).faces == ()
    assert len(Predictor(model, min_face=20).session().read(Frame("film", small)).faces) == 1


def test_a_model_of_other_faces_is_refused(model: Path) -> None:
    folder = model_folder.read(model)
    other = model_folder.ModelFolder(
        folder.path, "other", "1", folder.labels, model_folder.Preprocessing(3, 64, 64, 0, 1.0, "aligned"), 1.0
    )
    with pytest.raises(ModelError, match=r"takes faces of shape \(3, 64, 64\)"):
        Predictor(other)


@pytest.fixture
def two_models(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of two models that ship: the accurate one, and a fast one of a name and temperature of its own."""
    for name in ("careful", "quick"):
        shutil.copytree(model, tmp_path / "models" / name)
    index = json.loads((tmp_path / "models/quick/model.json").read_text())
    (tmp_path / "models/quick/model.json").write_text(json.dumps(index | {"name": "Quick", "temperature": 3.0}))
    monkeypatch.setattr(model_folder, "MODELS", tmp_path / "models")
    monkeypatch.setitem(model_folder.SHIPPED, "accurate", "careful")
    monkeypatch.setitem(model_folder.SHIPPED, "fast", "quick")
    return tmp_path / "models"


def test_images_are_read_by_the_accurate_model_and_films_by_the_fast_one(
    two_models: Path, model: Path, portrait: np.ndarray
) -> None:
    still = Still((100, 100, 400, 400))
    predictor = Predictor(detector=still)
    assert (predictor.folder.path, predictor.moving_folder.path) == (two_models / "careful", two_models / "quick")
    frame = Frame("film", portrait)
    np.testing.assert_allclose(values(predictor(portrait)), values(Predictor(model, detector=still)(portrait)))
    fast = Predictor("fast", detector=still)
    assert fast.moving_folder is fast.folder
    np.testing.assert_allclose(values(predictor.session().read(frame)), values(fast.session().read(frame)))
    assert abs(values(fast(portrait))[0] - values(predictor(portrait))[0]) > 1e-6


def test_the_two_models_must_have_the_same_labels(two_models: Path) -> None:
    text = (two_models / "quick/labels.txt").read_text().replace("angry", "cross")
    (two_models / "quick/labels.txt").write_text(text)
    index = json.loads((two_models / "quick/model.json").read_text())
    index["sha256"]["labels.txt"] = sha256(two_models / "quick/labels.txt")
    (two_models / "quick/model.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match=r"quick: other labels or faces than .*careful; say which"):
        _ = Predictor().moving_folder


def test_a_model_is_found_by_its_name(two_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(two_models / "quick", tmp_path / "results/mine/model")
    shutil.copytree(two_models / "quick", tmp_path / "here")
    find = model_folder.find
    assert find("fast") == two_models / "quick"
    assert find("careful") == two_models / "careful"
    assert find("mine") == Path("results/mine/model")
    assert find("here") == Path("here")
    assert find("some/where") == find(Path("some/where")) == Path("some/where")
    assert find(Path("fast")) == Path("fast")
    with pytest.raises(ModelError, match=r"model slow: no model .* fast, accurate, ferplus, careful, mine, quick or"):
        find("slow")


def test_readings_become_a_table(predictor: Predictor, portrait: np.ndarray) -> None:
    table = to_dataframe(predictor([portrait, np.zeros((50, 60, 3), np.uint8)]))
    assert list(table.columns) == columns(predictor.labels)
    assert list(table["status"]) == ["found", "none"]
    assert table["probability_happy"][0] == pytest.approx(values(predictor(portrait))[3], abs=1e-5)
    assert table["probability_happy"].isna().tolist() == [False, True]
