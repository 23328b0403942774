"""Sinks: what is written can be read again, and nothing half-written stays."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.live.frames import Frame
from pipeline.live.readings import LANDMARKS, FaceReading, Reading
from pipeline.live.sinks import AnnotatedImages, Csv, JsonLines, Sink

LABELS = ("happy", "sad")


def face(status: str = "found") -> FaceReading:
    landmarks = {name: (10.0 + i, 20.25) for i, name in enumerate(LANDMARKS)} if status == "found" else {}
    score = 0.98765 if status == "found" else None
    return FaceReading((1.0, 2.0, 30.04, 40.0), score, landmarks, {"happy": 0.25, "sad": 0.75}, status)


def frame(name: str, side: int = 64) -> Frame:
    return Frame(name, np.full((side, side, 3), 128, np.uint8))


ODD = 'a "quoted", name\nof two lines é \udcff.png'
READINGS = (
    Reading("one.png", 64, 64, (face(), face())),
    Reading(ODD, 64, 64, ()),
    Reading("whole.png", 64, 64, (face("whole"),)),
)


def fill(sink: Sink) -> None:
    with sink:
        for reading in READINGS:
            sink.write(frame(reading.file), reading)


def test_lines_of_json_hold_every_frame(tmp_path: Path) -> None:
    fill(JsonLines(tmp_path / "out.jsonl"))
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line["file"] for line in lines] == [reading.file for reading in READINGS]
    assert [len(line["faces"]) for line in lines] == [2, 0, 1]
    assert lines[0]["faces"][0] == {
        "track": None,
        "box": [1.0, 2.0, 30.0, 40.0],
        "score": 0.9877,
        "landmarks": {name: [10.0 + i, 20.2] for i, name in enumerate(LANDMARKS)},
        "probabilities": {"happy": 0.25, "sad": 0.75},
        "label": "sad",
        "uncertain": False,
        "status": "found",
        "conditions": [],
    }
    assert lines[2]["faces"][0]["score"] is None
    assert lines[2]["faces"][0]["landmarks"] == {}


def test_standard_output_is_written_line_by_line(capsys: pytest.CaptureFixture[str]) -> None:
    with JsonLines(None) as sink:
        sink.write(frame("one.png"), READINGS[0])
        assert json.loads(capsys.readouterr().out)["file"] == "one.png"


def test_csv_has_a_row_a_face_and_one_for_a_frame_without(tmp_path: Path) -> None:
    fill(Csv(tmp_path / "out.csv", LABELS))
    with open(tmp_path / "out.csv", newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = list(csv.DictReader(file, strict=True))
    assert [row["file"] for row in rows] == ["one.png", "one.png", ODD, "whole.png"]
    assert [row["status"] for row in rows] == ["found", "found", "none", "whole"]
    assert rows[0]["label"] == "sad"
    assert rows[0]["probability_sad"] == "0.75"
    assert (rows[0]["left"], rows[0]["mouth_right_y"]) == ("1.0", "20.2")
    assert None not in rows[2]
    assert set(rows[2].values()) == {ODD, "0", "64", "none", ""}
    assert rows[3]["score"] == rows[3]["nose_x"] == ""


def test_annotated_images_keep_their_paths(tmp_path: Path) -> None:
    root = tmp_path / "in"
    with AnnotatedImages(tmp_path / "out", root) as sink:
        for name in ("a.jpg", "a.png", "deep/b.png"):
            sink.write(frame(str(root / name), 500), READINGS[0])
    found = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.*"))
    assert found == ["a.jpg.png", "a.png", "deep/b.png"]
    with Image.open(tmp_path / "out/a.png") as image:
        assert image.size == (500, 500)
        assert len(np.unique(np.asarray(image))) > 3


@pytest.mark.parametrize("kind", ["json", "csv"])
def test_an_error_leaves_the_file_of_before(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "out"
    path.write_text("before")
    sink = JsonLines(path) if kind == "json" else Csv(path, LABELS)
    with pytest.raises(AttributeError), sink:
        sink.write(frame("one.png"), None)  # type: ignore[arg-type]
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]
