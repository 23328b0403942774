"""Answers: pictures and videos with what was read, refusals with their reasons, files as Telegram takes them."""

import io
import threading
import zlib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from helpers.bot_stand_ins import BrightnessReader, jpeg, video
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.bot import answers
from pipeline.bot.answers import Refusal, answer_image, answer_video, numbered
from pipeline.readings import FaceReading, Reading

GREY = np.full((240, 320, 3), 128, np.uint8)


def one_colour_png(width: int, height: int) -> bytes:
    """A grey PNG, made without its pixels ever being in memory."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4) + name + data + zlib.crc32(name + data).to_bytes(4)

    head = width.to_bytes(4) + height.to_bytes(4) + bytes((8, 0, 0, 0, 0))
    packer = zlib.compressobj(1)
    rows = [packer.compress(bytes(width + 1)) for _ in range(height)]
    pixels = b"".join([*rows, packer.flush()])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def test_faces_are_numbered_from_left_to_right_as_they_are_drawn_and_said() -> None:
    answer = answer_image(BrightnessReader(), jpeg(GREY), "en")
    assert answer.text == "1. uncertain, perhaps sad (45%) – very small, turned away\n2. happy, 93%"
    assert answer.kind == "photo"
    drawn = np.asarray(Image.open(io.BytesIO(answer.file)), dtype=int)
    assert drawn.shape[:2] == (answer.height, answer.width)
    assert (abs(drawn - 128).max(axis=2) > 60).mean() > 0.02


def test_the_text_is_in_the_users_language() -> None:
    answer = answer_image(BrightnessReader(), jpeg(GREY), "de")
    assert answer.text == "1. unsicher, vielleicht traurig (45 %) – sehr klein, abgewandt\n2. fröhlich, 93 %"


def test_no_face_is_said_without_a_picture() -> None:
    answer = answer_image(BrightnessReader(), jpeg(GREY // 8), "en")
    assert answer == answers.Answer("I found no face. Faces should be sharp, not too small, and turned to the camera.")


@pytest.mark.parametrize("data", [b"", b"Just text, named .jpg", jpeg(GREY)[:900], b"%PDF-1.7 ...", b"\xff\xd8\xff"])
def test_what_is_no_image_or_is_damaged_is_said(data: bytes) -> None:
    with pytest.raises(Refusal) as caught:
        answer_image(BrightnessReader(), data, "en")
    assert (caught.value.text, caught.value.values) == ("not_an_image", {})


@pytest.mark.parametrize(("width", "height"), [(10_000, 6_000), (60_000, 60_000)])
def test_an_image_of_too_many_pixels_is_refused_before_it_is_unpacked(width: int, height: int) -> None:
    data = one_colour_png(width, 6_000)
    if height != 6_000:
        data = data[:20] + height.to_bytes(4) + data[24:]
        data = data[:29] + zlib.crc32(data[12:29]).to_bytes(4) + data[33:]
    reader = BrightnessReader()
    with pytest.raises(Refusal) as caught:
        answer_image(reader, data, "en")
    assert (caught.value.text, caught.value.values) == ("image_too_large", {"limit": 50})
    assert reader.sizes == []


def test_a_large_image_is_scaled_down_to_be_read() -> None:
    reader = BrightnessReader()
    answer = answer_image(reader, jpeg(np.full((3000, 6000, 3), 128, np.uint8)), "en")
    assert reader.sizes == [(2560, 1280)]
    assert (answer.width, answer.height) == (2560, 1280)


@pytest.mark.parametrize(
    ("size", "kind"), [((2000, 100), "photo"), ((2100, 100), "document"), ((90, 1900), "document")]
)
def test_what_telegram_takes_for_no_photo_goes_as_a_document(size: tuple[int, int], kind: str) -> None:
    answer = answers._picture_answer(np.full((size[1], size[0], 3), 128, np.uint8), "text")
    assert (answer.kind, answer.text) == (kind, "text")
    assert Image.open(io.BytesIO(answer.file)).size == size


def test_a_photo_of_too_many_bytes_goes_as_a_document(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "PHOTO_BYTES", 500)
    assert answers._picture_answer(GREY, "text").kind == "document"


@given(st.lists(st.tuples(*[st.floats(0, 500)] * 4), max_size=12))
def test_numbers_grow_from_left_to_right_and_faces_stay_in_place(corners: list[tuple[float, ...]]) -> None:
    faces = tuple(
        FaceReading((min(a, c), min(b, d), max(a, c), max(b, d)), 1.0, {}, {"happy": 1.0}, "found")
        for a, b, c, d in corners
    )
    reading = Reading("image", 500, 500, faces)
    result = numbered(reading)
    assert [replace(face, track=None) for face in result.faces] == list(faces)
    in_order = sorted(result.faces, key=lambda face: face.track or 0)
    assert [face.track for face in in_order] == list(range(1, len(faces) + 1))
    centres = [face.box[0] + face.box[2] for face in in_order]
    assert centres == sorted(centres)


def test_a_video_comes_back_drawn_with_a_line_for_each_face() -> None:
    answer = answer_video(BrightnessReader(), video(20), "en", 60, threading.Event())
    assert answer.text == "1. mostly happy (100% of the time)\n2. mostly uncertain (100% of the time)"
    assert (answer.kind, answer.duration) == ("video", 1)
    with av.open(io.BytesIO(answer.file), "r") as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 20
    assert frames[0].shape[:2] == (answer.height, answer.width)
    assert (abs(frames[10].astype(int) - 128).max(axis=2) > 60).mean() > 0.02


def test_a_gif_comes_back_as_a_video() -> None:
    file = io.BytesIO()
    pictures = [Image.fromarray(GREY + np.uint8(number)) for number in range(3)]
    pictures[0].save(file, "GIF", save_all=True, append_images=pictures[1:], duration=100)
    answer = answer_video(BrightnessReader(), file.getvalue(), "en", 60, threading.Event())
    with av.open(io.BytesIO(answer.file), "r") as container:
        assert len(list(container.decode(video=0))) == 3


def test_a_large_video_is_scaled_down() -> None:
    reader = BrightnessReader()
    answer = answer_video(reader, video(3, size=(1920, 1080)), "de", 60, threading.Event())
    assert reader.sizes == [(1280, 720)] * 3
    assert answer.text.startswith("1. meist fröhlich (100 % der Zeit)")


@pytest.mark.parametrize(
    ("data", "refusal"),
    [
        (b"", "not_a_video"),
        (b"a text" * 99, "not_a_video"),
        (video(20)[:300], "not_a_video"),
        (video(60, rate=20), "video_too_long"),
    ],
)
def test_videos_that_are_not_read(data: bytes, refusal: str) -> None:
    with pytest.raises(Refusal) as caught:
        answer_video(BrightnessReader(), data, "en", 2, threading.Event())
    assert caught.value.text == refusal


def test_a_video_of_huge_frames_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "VIDEO_SIZE", (319, 240))
    reader = BrightnessReader()
    with pytest.raises(Refusal) as caught:
        answer_video(reader, video(3), "en", 60, threading.Event())
    assert (caught.value.text, reader.sizes) == ("video_too_large", [])


def test_an_answer_that_telegram_would_not_take_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "UPLOAD_BYTES", 100)
    with pytest.raises(Refusal) as caught:
        answer_video(BrightnessReader(), video(3), "en", 60, threading.Event())
    assert caught.value.text == "answer_too_large"


def test_a_video_is_given_up_when_the_bot_stops_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    stop = threading.Event()
    stop.set()
    with pytest.raises(Refusal) as caught:
        answer_video(BrightnessReader(), video(3), "en", 60, stop)
    assert caught.value.text == "stopping"
    assert list(tmp_path.iterdir()) == []


def test_a_video_without_a_face_says_so() -> None:
    assert answer_video(BrightnessReader(), video(3, level=9), "en", 60, threading.Event()).kind is None


def test_of_many_faces_in_a_video_those_seen_longest_are_told() -> None:
    times = {track: Counter({"happy": track, "sad": 1}) for track in range(1, 14)}
    lines = answers._video_lines("en", times)
    assert lines[0] == "4. mostly happy (80% of the time)"
    assert len(lines) == 11
    assert lines[-1] == "and 3 more, seen for a shorter time"
