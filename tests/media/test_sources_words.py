"""Words: each stands for the source that it says, and standard input for all images that come on it."""

import io
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from helpers.moving_pictures import drawn, write_video
from PIL import Image

from pipeline.base.errors import SourceError
from pipeline.media.sources import ImageFiles, VideoReader, is_live, open_sources
from pipeline.media.sources.camera import Camera
from pipeline.media.sources.stream import Stream

if TYPE_CHECKING:
    from pipeline.media.frames import FrameSource


def png(colour: str) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (8, 6), colour).save(data, "PNG")
    return data.getvalue()


def pipe_in(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def test_images_on_standard_input_are_numbered(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe_in(monkeypatch, png("red") + png("lime"))
    (source,) = open_sources(["-"])
    assert isinstance(source, ImageFiles)
    assert (source.total, source.root) == (None, Path.cwd())
    with source:
        frames = list(source)
    assert [(frame.name, frame.index) for frame in frames] == [("stdin-1", 0), ("stdin-2", 1)]
    assert [tuple(frame.image[0, 0]) for frame in frames] == [(255, 0, 0), (0, 255, 0)]


def test_a_damaged_image_on_standard_input_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pipe_in(monkeypatch, png("red") + png("lime")[:-30])
    (source,) = open_sources(["-"])
    assert [frame.name for frame in source] == ["stdin-1"]
    assert source.failed == 1
    assert "error: stdin-2: cannot be read as an image" in caplog.text


def test_a_list_comes_by_standard_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """`ls | predict -`."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(png("red"))
    pipe_in(monkeypatch, b"a.png\nb.png\n")
    (source,) = open_sources(["-"])
    assert [frame.name for frame in source] == ["a.png", "b.png"]
    for first, wrong in ((b"gone.png", "gone.png"), (b"# all", "# all"), (b'"a.png"', '"a.png"')):
        pipe_in(monkeypatch, first + b"\na.png\n")
        with pytest.raises(
            SourceError, match=f"^-:1: no such file: {wrong}; a line is a path relative to the current fo"
        ):
            open_sources(["-"])


def test_a_list_of_all_in_a_folder_comes_by_standard_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """`ls | predict -` and `find . | predict -`, beside films, notes and folders."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.png").write_bytes(png("red"))
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("It was a dark and stormy night\n")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "b.png").write_bytes(png("lime"))
    write_video(tmp_path / "walk.mp4", drawn(2))
    pipe_in(monkeypatch, b"\n.\na.png 3\nempty\nnotes.txt\nphotos\nwalk.mp4\n")
    images, video = open_sources(["-"])
    # Each once, though find names them and their folder.
    assert [frame.name for frame in images] == ["a.png", "photos/b.png"]
    assert video.name == "walk.mp4"
    assert "passed over: 2 other files (notes.txt, empty)" in caplog.text


def test_an_image_of_plain_text_is_no_list(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe_in(monkeypatch, b"P3\n1 1\n255\n1 2 3\n")
    (source,) = open_sources(["-"])
    (frame,) = source
    assert frame.image.tolist() == [[[1, 2, 3]]]


def test_nothing_on_standard_input_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe_in(monkeypatch, b"")
    with pytest.raises(SourceError, match="-: nothing on standard input"):
        list(open_sources(["-"])[0])
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(SourceError, match="-: standard input is closed"):
        list(open_sources(["-"])[0])


def test_a_terminal_has_no_images(monkeypatch: pytest.MonkeyPatch) -> None:
    controller, terminal = os.openpty()
    with os.fdopen(terminal, "r") as stdin, os.fdopen(controller, "r"):
        monkeypatch.setattr(sys, "stdin", stdin)
        with pytest.raises(SourceError, match="-: standard input is the terminal"):
            list(open_sources(["-"])[0])


def test_all_images_are_one_source_and_every_other_is_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(png("blue"))
    write_video(tmp_path / "b.mp4", drawn(2))
    pipe_in(monkeypatch, png("red"))
    words = ["cam", "rtsp://u:p@127.0.0.1/live", str(tmp_path / "b.mp4"), "-", "cam:1", str(tmp_path / "a.png"), "cam"]
    sources: list[FrameSource] = open_sources(words)
    assert [type(source) for source in sources] == [ImageFiles, Camera, Stream, VideoReader, Camera]
    assert [source.name for source in sources[1:]] == [
        "cam:0",
        "rtsp://127.0.0.1/live",
        str(tmp_path / "b.mp4"),
        "cam:1",
    ]
    with sources[0] as images:
        assert [frame.name for frame in images] == ["stdin-1", str(tmp_path / "a.png")]
        assert images.name == "2 images"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_a_list_on_standard_input_may_be_utf_16_as_a_file_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    (tmp_path / "a.png").write_bytes(png("blue"))
    pipe_in(monkeypatch, f"{tmp_path}/a.png\n".encode(encoding))
    (source,) = open_sources(["-"])
    assert [frame.name for frame in source] == [str(tmp_path / "a.png")]


def test_a_dark_picture_of_16_bits_is_no_list(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe_in(monkeypatch, b"P5 16 16 65535\n" + b"\0\x20" * 256)  # a zero byte in every other place, as UTF-16 has
    (source,) = open_sources(["-"])
    assert [frame.name for frame in source] == ["stdin-1"]


def test_a_file_called_as_a_word_is_read_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("cam", "-"):
        Path(name).write_bytes(png("blue"))
        (source,) = open_sources([f"./{name}"])
        assert [tuple(frame.image[0, 0]) for frame in source] == [(0, 0, 255)]


@pytest.mark.parametrize(
    ("word", "live"),
    [
        ("cam", True),
        ("cam:1", True),
        ("/dev/video3", True),
        ("rtsp://h/x.mp4?y", True),
        ("rtsp://h/live", True),
        ("http://h/video", True),
        ("http://h/a.JPG", False),
        ("https://h/a.mp4?token=1", False),
        ("-", False),
        ("photos", False),
        ("a.mp4", False),
        ("cam.png", False),
    ],
)
def test_what_never_ends_is_known_by_its_word(word: str, live: bool) -> None:
    assert is_live(word) is live
