"""Videos: every frame once, upright, at its time, of whatever codec; what is damaged is counted and told."""

import threading
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from helpers.local_server import body, serve
from helpers.moving_pictures import HEIGHT, WIDTH, drawn, number_of, write_video
from PIL import Image

from pipeline.base.errors import SourceError
from pipeline.media.frames import Frame
from pipeline.media.sources import VideoReader, open_sources, video


def read(path: Path) -> tuple[VideoReader, list[Frame]]:
    with VideoReader(path) as source:
        return source, list(source)


def times_of(frames: list[Frame]) -> list[float]:
    """Each has one."""
    times = [frame.time for frame in frames if frame.time is not None]
    assert len(times) == len(frames)
    return times


def near(pixel: np.ndarray, colour: tuple[int, ...]) -> bool:
    return bool(np.abs(pixel.astype(int) - colour).max() <= 40)


@pytest.mark.parametrize(
    ("name", "codec", "pixels"),
    [
        ("a.mp4", "libx264", "yuv420p"),
        ("a.mkv", "libx264", "yuv444p"),
        ("a.avi", "mpeg4", "yuv420p"),
        ("a.webm", "libvpx-vp9", "yuv420p"),
        ("a.mov", "mjpeg", "yuvj420p"),
        ("a.mpg", "mpeg2video", "yuv420p"),
        ("a.mkv", "ffv1", "yuv420p10le"),
        ("a.mov", "prores", "yuv422p10le"),
        ("a.flv", "flv", "yuv420p"),
        ("a.mjpeg", "mjpeg", "yuvj420p"),
        ("a.bin", "libx265", "yuv420p"),
    ],
)
def test_frames_of_any_codec_come_in_order(tmp_path: Path, name: str, codec: str, pixels: str) -> None:
    path = write_video(
        tmp_path / name,
        drawn(20),
        codec=codec,
        pixels=pixels,
        container={"a.bin": "matroska", "a.mjpeg": "mjpeg"}.get(name),
    )
    source, frames = read(path)
    assert [number_of(frame.image, 20) for frame in frames] == list(range(20))
    assert [frame.index for frame in frames] == list(range(20))
    assert {(frame.name, frame.image.shape, frame.image.dtype) for frame in frames} == {
        (str(path), (HEIGHT, WIDTH, 3), np.dtype(np.uint8))
    }
    assert near(frames[9].image[4, 8], (250, 10, 20))
    assert near(frames[9].image[4, -8], (10, 240, 30))
    assert (source.moving, source.live, source.failed, source.dropped) == (True, False, 0, 0)
    np.testing.assert_allclose(times_of(frames), np.arange(20) / 25, atol=0.045 if name == "a.flv" else 0.01)


def test_times_of_a_variable_rate_are_the_files_own(tmp_path: Path) -> None:
    times = [0, 0.04, 0.5, 0.54, 2.0, 2.01, 7.25]
    for name in ("variable.mkv", "variable.mp4"):
        _, frames = read(write_video(tmp_path / name, drawn(7), times=times))
        np.testing.assert_allclose(times_of(frames), times, atol=0.002)


def test_times_start_where_the_file_does(tmp_path: Path) -> None:
    """MPEG transport streams begin their clock anywhere."""
    times = [5 + number / 25 for number in range(10)]
    _, frames = read(write_video(tmp_path / "a.mts", drawn(10), container="mpegts", times=times))
    with av.open(str(tmp_path / "a.mts")) as file:
        assert file.start_time > 4_000_000
    np.testing.assert_allclose(times_of(frames), np.arange(10) / 25, atol=0.01)


def shown(path: Path, a: int, b: int, c: int, d: int) -> Path:
    """The video again, with this display matrix (ISO 14496-12, 8.3.2: tkhd)."""
    data = bytearray(path.read_bytes())
    at = data.index(b"\0\1\0\0" + bytes(12) + b"\0\1\0\0" + bytes(12) + b"\x40\0\0\0", data.index(b"trak"))
    values = (a, b, 0, c, d, 0, 0, 0)
    data[at : at + 36] = b"".join((value << 16).to_bytes(4, "big", signed=True) for value in values) + b"\x40\0\0\0"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(("degrees", "corners"), [(90, "b r"), (180, ".gb"), (270, "g..")])
def test_a_turned_video_comes_upright(tmp_path: Path, degrees: int, corners: str) -> None:
    a, b = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    path = shown(write_video(tmp_path / "a.mp4", drawn(3)), a, b, -b, a)
    _, frames = read(path)
    image = frames[0].image
    assert image.shape == ((HEIGHT, WIDTH, 3) if degrees == 180 else (WIDTH, HEIGHT, 3))
    # The matrix turns clockwise: what was at the bottom left is at the top left after a quarter.
    stored = {"red": (4, 4), "green": (4, -4), "blue": (-4, 4)}
    quarter = {(4, 4): (4, -4), (4, -4): (-4, -4), (-4, 4): (4, 4), (-4, -4): (-4, 4)}
    for colour, value in (("red", (250, 10, 20)), ("green", (10, 240, 30)), ("blue", (30, 20, 230))):
        place = stored[colour]
        for _ in range(degrees // 90):
            place = quarter[place]
        assert near(image[place], value), colour


@pytest.mark.parametrize(
    ("matrix", "places"),
    [
        ((-1, 0, 0, 1), {"red": (4, -4), "green": (4, 4), "blue": (-4, -4)}),  # mirrored, as by a front camera
        ((1, 0, 0, -1), {"red": (-4, 4), "green": (-4, -4), "blue": (4, 4)}),
        ((0, 1, 1, 0), {"red": (4, 4), "green": (-4, 4), "blue": (4, -4)}),  # transposed
        ((0, -1, -1, 0), {"red": (-4, -4), "green": (4, -4), "blue": (-4, 4)}),
    ],
)
def test_the_whole_display_matrix_counts(
    tmp_path: Path, matrix: tuple[int, int, int, int], places: dict[str, tuple[int, int]]
) -> None:
    _, frames = read(shown(write_video(tmp_path / "a.mp4", drawn(3)), *matrix))
    for colour, value in (("red", (250, 10, 20)), ("green", (10, 240, 30)), ("blue", (30, 20, 230))):
        assert near(frames[0].image[places[colour]], value), colour


def test_pixels_that_are_not_square_are_spread(tmp_path: Path) -> None:
    _, frames = read(write_video(tmp_path / "a.mkv", drawn(2), aspect=Fraction(2)))
    assert frames[0].image.shape == (HEIGHT, 2 * WIDTH, 3)


def test_frames_keep_the_first_ones_size(tmp_path: Path) -> None:
    for name, size in (("1.mts", (96, 64)), ("2.mts", (64, 96))):
        write_video(tmp_path / name, drawn(5, *size), container="mpegts")
    path = tmp_path / "both.mts"
    path.write_bytes((tmp_path / "1.mts").read_bytes() + (tmp_path / "2.mts").read_bytes())
    _, frames = read(path)
    assert len(frames) > 6
    assert {frame.image.shape for frame in frames} == {(64, 96, 3)}


def test_sound_is_passed_over_and_frames_are_counted_beforehand(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", drawn(30), sound=True)
    with VideoReader(path) as source:
        assert source.total == 30
        assert len(list(source)) == 30


def test_names_of_all_kinds_are_opened(tmp_path: Path) -> None:
    made = write_video(tmp_path / "a.mp4", drawn(2))
    for name in ("with space.mp4", "é 笑.mp4", "line\nbreak.mp4", "a:b.mp4", "http:x.mp4", "\udce9.mp4", "50%d.mp4"):
        path = tmp_path / name
        path.write_bytes(made.read_bytes())
        source, frames = read(path)
        assert len(frames) == 2
        assert source.path == path
        assert frames[0].name == source.name == str(path)


def no_packets(path: Path) -> None:
    with av.open(str(path), "w", format="matroska") as file:
        stream = file.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        file.start_encoding()


def sound_alone(path: Path) -> None:
    with av.open(str(path), "w", format="mp4") as file:
        stream = file.add_stream("aac", rate=48000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 48000
        frame.pts = 0
        file.mux([*stream.encode(frame), *stream.encode(None)])


def unknown_codec(path: Path) -> None:
    data = write_video(path, drawn(5), codec="mpeg4", container="avi").read_bytes()
    path.write_bytes(data.replace(b"FMP4", b"ZZZZ"))


def first_half(path: Path) -> None:
    data = write_video(path, drawn(30), container="mp4").read_bytes()
    path.write_bytes(data[: len(data) // 2])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (no_packets, "without a single frame"),
        (sound_alone, "no video in it, only audio"),
        (unknown_codec, "its codec is not one that is known"),
        (first_half, "neither an image nor a video of a known format; is it whole"),
        (lambda path: path.write_bytes(b""), "an empty file"),
        (lambda path: path.write_bytes(b"plain text " * 500), "neither an image nor a video"),
        (lambda path: None, "No such file"),
    ],
)
def test_what_gives_no_frame_is_one_clear_line(tmp_path: Path, make: Callable[[Path], None], message: str) -> None:
    path = tmp_path / "video.mp4"
    make(path)
    with pytest.raises(SourceError, match=message) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_name_of_several_lines_is_told_on_one(tmp_path: Path) -> None:
    path = tmp_path / "two\nlines.mp4"
    path.write_bytes(b"no video " * 100)
    with pytest.raises(SourceError, match="neither an image nor a video") as caught:
        read(path)
    assert str(caught.value).startswith(f"{tmp_path}/two\\nlines.mp4: ")


def test_a_video_may_name_no_other_file(tmp_path: Path) -> None:
    write_video(tmp_path / "secret.ts", drawn(5), container="mpegts")
    path = tmp_path / "playlist.m3u8"
    path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.ts\n#EXT-X-ENDLIST\n")
    with av.open(str(path)) as file:
        assert len(list(file.decode(video=0))) == 5  # as FFmpeg does when it is left to itself
    with pytest.raises(SourceError, match="neither an image nor a video"):
        read(path)


def test_a_cover_picture_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as file:
        audio = file.add_stream("aac", rate=48000, layout="mono")
        cover = file.add_stream("png", rate=1)
        cover.width, cover.height, cover.pix_fmt = 8, 8, "rgb24"
        cover.disposition = av.stream.Disposition.attached_pic
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 48000
        file.mux([*audio.encode(frame), *audio.encode(None)])
        image = av.VideoFrame.from_ndarray(np.zeros((8, 8, 3), np.uint8), format="rgb24")
        file.mux([*cover.encode(image), *cover.encode(None)])
    with pytest.raises(SourceError, match="no video in it"):
        read(path)


def test_frames_of_too_many_pixels_are_refused_before_they_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / "a.mp4", drawn(2))
    monkeypatch.setattr(video, "MAX_PIXELS", WIDTH * HEIGHT - 1)
    with pytest.raises(SourceError, match=f"frames of {WIDTH}x{HEIGHT} where at most"), VideoReader(path):
        pass


def test_damaged_packets_are_counted_told_and_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_video(tmp_path / "a.mov", drawn(40), codec="png", pixels="rgb24")
    data = path.read_bytes()
    starts = [at for at in range(len(data)) if data.startswith(b"\x89PNG", at)]
    for start in starts[10:25]:
        data = data[:start] + b"gone" + data[start + 4 :]
    path.write_bytes(data)
    source, frames = read(path)
    assert [number_of(frame.image, 40) for frame in frames] == [*range(10), *range(25, 40)]
    assert source.failed == 15
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == f"error: {path}: a damaged packet near 0.44 s: Invalid data found when processing input"
    assert len(lines) == video.TOLD + 1
    assert lines[-1] == f"error: {path}: 15 damaged packets in all"


def test_an_end_before_the_stated_one_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_video(tmp_path / "a.mp4", drawn(100), options={"g": "10"})
    with (
        av.open(str(path)) as whole,
        av.open(str(tmp_path / "front.mp4"), "w", options={"movflags": "faststart"}) as front,
    ):
        copy = front.add_stream_from_template(whole.streams.video[0])
        for packet in whole.demux(video=0):
            if packet.dts is not None:
                packet.stream = copy
                front.mux(packet)
    data = (tmp_path / "front.mp4").read_bytes()
    path.write_bytes(data[: data.index(b"mdat") + (len(data) - data.index(b"mdat")) // 2])
    source, frames = read(path)
    assert 20 < len(frames) < 80
    assert source.failed == 100 - len(frames)
    assert f"ends after {len(frames)} of 100 frames" in caplog.text


def test_an_early_end_is_told_of_matroska_which_states_no_number_of_frames(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_video(tmp_path / "a.mkv", drawn(100), options={"g": "10"})
    assert read(path)[0].failed == 0
    assert caplog.text == ""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    source, frames = read(path)
    assert 20 < len(frames) < 80
    assert source.failed == pytest.approx(100 - len(frames), abs=5)
    assert f"ends after {len(frames)} of about " in caplog.text


def test_reading_may_be_left_in_the_middle(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", drawn(100))
    before = threading.active_count()
    with VideoReader(path) as source:
        for frame in source:
            if frame.index == 3:
                break
    assert threading.active_count() == before
    with pytest.raises(ZeroDivisionError), VideoReader(path) as source:
        print(next(iter(source)).index / 0)
    assert threading.active_count() == before


def test_titles_in_another_encoding_do_not_matter(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", drawn(5))
    path.write_bytes(path.read_bytes().replace(b"Lavf", b"\xe9\xff\xe9\xff"))
    assert len(read(path)[1]) == 5


def test_no_more_than_a_few_frames_are_decoded_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    converted: list[int] = []
    convert = video.UprightRgb.__call__

    def count(*args: Any) -> np.ndarray:
        converted.append(1)
        return convert(*args)

    monkeypatch.setattr(video.UprightRgb, "__call__", count)
    with VideoReader(write_video(tmp_path / "a.mp4", drawn(100))) as source:
        frames = iter(source)
        for _ in range(50):
            next(frames)
        assert len(converted) <= 50 + video.FRAMES_AHEAD + 2


def test_a_video_behind_an_address_is_read_as_the_file(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", drawn(10))
    with serve(body(path.read_bytes(), "video/mp4")) as port:
        (source,) = open_sources([f"http://user:secret@127.0.0.1:{port}/a.mp4?token=secret"])
        with source:
            frames = list(source)
    assert not source.live
    assert [number_of(frame.image, 10) for frame in frames] == list(range(10))
    assert source.name == f"http://127.0.0.1:{port}/a.mp4"


def test_an_image_behind_an_address_is_among_the_images(tmp_path: Path) -> None:
    Image.new("RGB", (8, 6), "red").save(tmp_path / "a.png")
    with serve(body((tmp_path / "a.png").read_bytes(), "image/png")) as port:
        address = f"http://127.0.0.1:{port}/picture"
        (source,) = open_sources([str(tmp_path / "a.png"), address])
        with source:
            assert [frame.name for frame in source] == [str(tmp_path / "a.png"), address]
    with serve(body(b"<html>", "text/html")) as port, pytest.raises(SourceError, match="text/html where an image"):
        open_sources([f"http://127.0.0.1:{port}/"])
