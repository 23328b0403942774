"""Sinks of text and pictures: what is written can be read again; a file is whole, or has all that was written live."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from helpers.full_disk import full_disk
from PIL import Image

from pipeline.base.errors import InputError, SourceError
from pipeline.drawing.overlay import Overlay
from pipeline.media.frames import Frame
from pipeline.media.sinks import AnnotatedImages, Csv, JsonLines, Sink
from pipeline.readings import LANDMARKS, FaceReading, Reading

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


def fill(sink: Sink, times: int = 1, error: BaseException | None = None) -> None:
    with sink:
        for reading in READINGS * times:
            sink.write(frame(reading.file), reading)
        if error:
            raise error


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


def test_a_table_on_standard_output_keeps_names_that_are_no_text(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    fill(Csv(None, LABELS))
    assert ODD.encode("utf-8", "surrogateescape") in capfdbinary.readouterr().out.replace(b'""', b'"')


def test_whoever_reads_standard_output_may_have_seen_enough() -> None:
    code = (
        "from pipeline.readings import Reading; from pipeline.media.sinks import JsonLines; import sys\n"
        "with JsonLines(None) as sink:\n"
        "    while not sink.done:\n        sink.write(None, Reading('one.png', 64, 64, ()))\n"
        "print('ended', file=sys.stderr)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stderr
        assert json.loads(process.stdout.readline())["file"] == "one.png"
        process.stdout.close()
        assert process.stderr.read() == "standard output was closed; nothing more is read\nended\n"
    assert process.returncode == 0


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
    with AnnotatedImages(tmp_path / "out", root, Overlay()) as sink:
        for name in ("a.jpg", "a.png", "deep/b.png"):
            sink.write(frame(str(root / name), 500), READINGS[0])
    found = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.*"))
    assert found == ["a.jpg.png", "a.png", "deep/b.png"]
    with Image.open(tmp_path / "out/a.png") as image:
        assert image.size == (500, 500)
        assert len(np.unique(np.asarray(image))) > 3


def test_annotated_images_stay_within_their_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    names = ["../beside/a.jpg", "stdin-1", "https://host/../../../a b.png?c=/d", f"http://host/{'x' * 400}/e.jpg"]
    with AnnotatedImages(tmp_path / "out", tmp_path / "here", Overlay()) as sink:
        for name in names:
            sink.write(frame(name), READINGS[0])
    found = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.png")}
    beside = str((tmp_path / "beside" / "a.jpg.png").relative_to("/"))
    assert {beside, "stdin-1.png", "https-host-..-..-..-a-b.png-c-d.png"} < found
    assert len(found) == len(names)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here", "out"]


def test_the_images_that_are_read_are_not_written_over(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="give another folder"):
        AnnotatedImages(tmp_path / "deep" / "..", tmp_path, Overlay())
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "in/a.png").write_text("read")
    (tmp_path / "out/a.png").symlink_to(tmp_path / "in/a.png")
    (tmp_path / "out/b.png").symlink_to(tmp_path / "elsewhere.png")
    with AnnotatedImages(tmp_path / "out", tmp_path / "in", Overlay()) as sink:
        with pytest.raises(InputError, match=r"out/a\.png: a link among the images that are read"):
            sink.write(frame(str(tmp_path / "in/a.png")), READINGS[0])
        sink.write(frame(str(tmp_path / "in/b.png")), READINGS[0])
    assert (tmp_path / "in/a.png").read_text() == "read"
    assert (tmp_path / "elsewhere.png").exists()


Text = Callable[[Path, bool], Sink]
TEXTS: dict[str, Text] = {
    "json": lambda path, live: JsonLines(path, live=live),
    "csv": lambda path, live: Csv(path, LABELS, live=live),
}
texts = pytest.mark.parametrize("make", TEXTS.values(), ids=TEXTS)


@texts
def test_an_error_leaves_the_file_of_before(tmp_path: Path, make: Text) -> None:
    path = tmp_path / "out"
    path.write_text("before")
    with pytest.raises(KeyboardInterrupt):
        fill(make(path, False), error=KeyboardInterrupt())
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


@texts
def test_live_every_line_is_there_at_once(tmp_path: Path, make: Text) -> None:
    path = tmp_path / "new" / "out"
    with make(path, True) as sink:
        before = b""
        for reading in READINGS:
            sink.write(frame(reading.file), reading)
            written = path.read_bytes()
            assert written.startswith(before)
            assert written.endswith(b"\n")
            assert len(written) > len(before)
            before = written
    fill(make(tmp_path / "whole", False))
    assert path.read_bytes() == (tmp_path / "whole").read_bytes()


@texts
@pytest.mark.parametrize("error", [KeyboardInterrupt(), SourceError("camera lost"), RuntimeError()], ids=repr)
def test_live_every_line_is_kept_whatever_happens(tmp_path: Path, make: Text, error: BaseException) -> None:
    with pytest.raises(type(error)):
        fill(make(tmp_path / "out", True), error=error)
    fill(make(tmp_path / "whole", False))
    assert (tmp_path / "out").read_bytes() == (tmp_path / "whole").read_bytes()


@texts
def test_live_without_a_frame_what_was_there_before_stays(tmp_path: Path, make: Text) -> None:
    (tmp_path / "out").write_text("before")
    for name in ("out", "new"):
        with pytest.raises(SourceError), make(tmp_path / name, True):
            raise SourceError("no camera")
    assert (tmp_path / "out").read_text() == "before"
    assert not (tmp_path / "new").exists()
    fill(make(tmp_path / "out", True))
    assert b"before" not in (tmp_path / "out").read_bytes()


@texts
@pytest.mark.parametrize("live", [True, False])
def test_a_pipe_is_written_to_and_not_replaced(tmp_path: Path, make: Text, live: bool) -> None:
    os.mkfifo(tmp_path / "pipe")
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit((tmp_path / "pipe").read_bytes)
        fill(make(tmp_path / "pipe", live))
        fill(make(tmp_path / "file", live))
        assert read.result() == (tmp_path / "file").read_bytes()
    assert (tmp_path / "pipe").is_fifo()


@texts
def test_live_a_full_disk_is_told_and_whole_lines_stay(tmp_path: Path, make: Text) -> None:
    path = tmp_path / "out"
    with full_disk(5000), pytest.raises(OSError, match=str(path)):
        fill(make(path, True), times=100)
    fill(make(tmp_path / "whole", False), times=100)
    written = path.read_bytes()
    assert (tmp_path / "whole").read_bytes().startswith(written)
    assert written.endswith(b"\n")
    assert 4000 < len(written) <= 5000


@texts
def test_a_full_disk_is_told_and_nothing_stays(tmp_path: Path, make: Text) -> None:
    path = tmp_path / "out"
    with full_disk(5000), pytest.raises(OSError, match=str(path)):
        fill(make(path, False), times=100)
    assert list(tmp_path.iterdir()) == []
