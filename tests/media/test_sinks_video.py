"""The annotated video: frames keep their times, sound stays in step, and what was recorded live is never lost."""

import logging
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from helpers.full_disk import full_disk

from pipeline.base.errors import InputError
from pipeline.drawing.overlay import Overlay
from pipeline.media.frames import Frame
from pipeline.media.sinks import AnnotatedVideo
from pipeline.media.sinks.video import VideoWriter
from pipeline.readings import Reading

RATE = 20  # frames a second of the videos made here
SOUND_RATE = 48_000
MOMENT = 0.75  # seconds, when a flash is seen and a tone sets in
WIDTH, HEIGHT = 64, 48


def make_video(path: Path, sound: str | None, seconds: float = 2.0, sound_seconds: float | None = None) -> Path:
    """A dark video with a silent sound track until MOMENT, then a bright one with a tone."""
    with av.open(str(path), "w") as container:
        codec = "libx264" if path.suffix in (".mp4", ".ts") else "mjpeg"
        video = container.add_stream(codec, RATE)
        assert isinstance(video, av.VideoStream)
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p" if codec == "libx264" else "yuvj420p"
        track = container.add_stream(sound, SOUND_RATE, layout="mono") if sound else None
        assert track is None or isinstance(track, av.AudioStream)
        for index in range(round(seconds * RATE)):
            picture = np.full((HEIGHT, WIDTH, 3), 220 if index / RATE >= MOMENT else 10, np.uint8)
            frame = av.VideoFrame.from_ndarray(picture)
            frame.pts, frame.time_base = index, Fraction(1, RATE)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if track:
            times = np.arange(round((sound_seconds or seconds) * SOUND_RATE)) / SOUND_RATE
            tone = np.where(times >= MOMENT, np.sin(times * 2 * np.pi * 1000), 0).astype(np.float32)
            for start in range(0, len(tone), 960):
                samples = av.AudioFrame.from_ndarray(tone[None, start : start + 960], "fltp", "mono")
                samples.sample_rate, samples.pts, samples.time_base = SOUND_RATE, start, Fraction(1, SOUND_RATE)
                container.mux(track.encode(samples))
            container.mux(track.encode(None))
    return path


def frames(path: Path) -> Iterator[Frame]:
    with av.open(str(path)) as container:
        origin = (container.start_time or 0) / av.time_base
        for index, frame in enumerate(container.decode(video=0)):
            assert frame.time is not None
            yield Frame(str(path), frame.to_ndarray(format="rgb24"), index, frame.time - origin)


def picture(index: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Noise, which takes much room."""
    return np.random.default_rng(index).integers(0, 255, (height, width, 3), np.uint8)


def record(path: Path, source: Path | None, times: list[float], error: BaseException | None = None) -> None:
    with VideoWriter(path, source) as video:
        for index, time in enumerate(times):
            video.write(picture(index), time)
        if error:
            raise error


def copy(source: Path, path: Path, begin: int = 0, end: int | None = None) -> Path:
    """The frames `begin` to `end` of a video, as a new one."""
    with VideoWriter(path, source) as video:
        for frame in frames(source):
            if begin <= frame.index < (end or 1000):
                assert frame.time is not None
                video.write(frame.image, frame.time, first=frame.index == 0)
    return path


def spans(path: Path) -> dict[str, tuple[float, float]]:
    """Seconds from where to where picture and sound go."""
    found = {}
    with av.open(str(path)) as container:
        for stream in container.streams:
            container.seek(0)
            decoded: list[Any] = list(container.decode(stream))  # of frames of both kinds
            last = decoded[-1]
            found[str(stream.type)] = (decoded[0].time, last.time + float(last.duration * last.time_base))
    return found


def tone_at(path: Path) -> float:
    """Seconds when the tone sets in."""
    with av.open(str(path)) as container:
        for frame in container.decode(audio=0):
            loud = np.abs(frame.to_ndarray().reshape(-1).astype(float)) > 0.3
            if loud.any():
                assert frame.time is not None
                return float(frame.time + np.argmax(loud) / frame.sample_rate)
    raise AssertionError("silent")


def flash_at(path: Path) -> float:
    """Seconds when the picture becomes bright."""
    with av.open(str(path)) as container:
        frame = next(frame for frame in container.decode(video=0) if frame.to_ndarray(format="gray").mean() > 128)
        assert frame.time is not None
        return frame.time


def boxes(path: Path) -> list[bytes]:
    """Types of an MP4's outermost boxes."""
    data, kinds = path.read_bytes(), []
    while data:
        kinds.append(data[4:8])
        data = data[int.from_bytes(data[:4], "big") :]
    return kinds


def test_frames_keep_their_uneven_times_in_a_form_that_every_player_has(tmp_path: Path) -> None:
    times = [0.0, 0.04, 0.05, 0.3, 0.3333, 1.0]
    source = make_video(tmp_path / "source.mp4", None)
    with VideoWriter(tmp_path / "out.mp4", source) as video:
        for index, time in enumerate(times):
            video.write(picture(index, 47, 63), time, first=index == 0)
    found = list(frames(tmp_path / "out.mp4"))
    assert [frame.time for frame in found] == pytest.approx(times, abs=1e-5)
    assert found[0].image.shape == (48, 64, 3)
    with av.open(str(tmp_path / "out.mp4")) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
        assert container.duration == pytest.approx((1.0 + (1.0 - 0.3333)) * av.time_base, abs=1000)
        assert not container.streams.audio
    kinds = boxes(tmp_path / "out.mp4")
    assert kinds.index(b"moov") < kinds.index(b"mdat")


def test_colours_stay(tmp_path: Path) -> None:
    colours = np.array([[[220, 30, 40], [30, 200, 60], [40, 50, 210], [128, 128, 128]]], np.uint8)
    image = colours.repeat(32, 0).repeat(16, 1)
    with VideoWriter(tmp_path / "out.mp4", None) as video:
        for index in range(3):
            video.write(image, index / 10)
    (first, *_) = frames(tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as container:
        frame = next(container.decode(video=0))
        shown = frame.reformat(format="rgb24", src_colorspace=frame.colorspace).to_ndarray()
    assert first.image.shape == image.shape
    np.testing.assert_allclose(shown[16, 8::16].astype(int), colours[0].astype(int), atol=6)


@pytest.mark.parametrize(
    ("suffix", "sound"), [(".mp4", "aac"), (".ts", "aac"), (".mkv", "libmp3lame"), (".mov", "ac3")]
)
def test_sound_is_taken_over_packet_by_packet(tmp_path: Path, suffix: str, sound: str) -> None:
    source = make_video(tmp_path / f"source{suffix}", sound)
    copied = copy(source, tmp_path / "out.mp4")
    assert tone_at(copied) - flash_at(copied) == pytest.approx(tone_at(source) - flash_at(source), abs=0.002)
    with av.open(str(source)) as old, av.open(str(copied)) as new:
        before = [bytes(packet) for packet in old.demux(audio=0) if packet.size]
        after = [bytes(packet) for packet in new.demux(audio=0) if packet.size]
    if suffix == ".ts":  # its packets have a header that MP4 keeps apart
        before = [packet[7:] for packet in before]
    assert after == before


@pytest.mark.parametrize(("suffix", "sound"), [(".mkv", "libopus"), (".avi", "pcm_s16le"), (".mkv", "flac")])
def test_sound_that_players_of_mp4_lack_is_encoded_anew_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, suffix: str, sound: str
) -> None:
    source = make_video(tmp_path / f"source{suffix}", sound)
    caplog.set_level(logging.INFO)
    copied = copy(source, tmp_path / "out.mp4")
    with av.open(str(copied)) as container:
        assert container.streams.audio[0].codec_context.name == "aac"
    assert tone_at(copied) - flash_at(copied) == pytest.approx(tone_at(source) - flash_at(source), abs=0.002)
    assert spans(copied)["audio"][1] == pytest.approx(2.0, abs=0.03)
    assert f"{source}: its {sound.removeprefix('lib')} sound is encoded anew" in caplog.text


def test_sound_ends_with_the_picture_where_the_person_stopped(tmp_path: Path) -> None:
    source = make_video(tmp_path / "source.mp4", "aac")
    copied = copy(source, tmp_path / "out.mp4", end=20)
    found = spans(copied)
    assert found["video"] == pytest.approx((0, 1), abs=0.001)
    assert found["audio"] == pytest.approx((0, 1), abs=0.03)


def test_sound_that_outlasts_the_picture_is_kept(tmp_path: Path) -> None:
    source = make_video(tmp_path / "source.mp4", "aac", 1.0, 1.5)
    assert spans(copy(source, tmp_path / "out.mp4"))["audio"] == pytest.approx((0, 1.5), abs=0.03)


@pytest.mark.parametrize("sound", ["aac", "flac"])
def test_a_recording_from_the_middle_has_the_sound_of_there(tmp_path: Path, sound: str) -> None:
    source = make_video(tmp_path / "source.mkv", sound)
    copied = copy(source, tmp_path / "out.mp4", begin=10, end=30)
    found = spans(copied)
    assert found["video"] == pytest.approx((0, 1), abs=0.002)
    assert found["audio"] == pytest.approx((0, 1), abs=0.05)
    assert tone_at(copied) == pytest.approx(MOMENT - 10 / RATE, abs=0.02)


def test_an_error_leaves_nothing_of_a_file_s_video(tmp_path: Path) -> None:
    source = make_video(tmp_path / "source.mp4", "aac")
    (tmp_path / "out.mp4").write_bytes(b"before")
    with pytest.raises(KeyboardInterrupt):
        record(tmp_path / "out.mp4", source, [0.0, 0.1], KeyboardInterrupt())
    assert (tmp_path / "out.mp4").read_bytes() == b"before"
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("error", [KeyboardInterrupt(), InputError("camera lost"), RuntimeError()], ids=repr)
def test_live_whatever_happens_the_video_is_kept(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)):
        record(tmp_path / "out.mp4", None, [5.0, 5.1, 5.25], error)
    assert [frame.time for frame in frames(tmp_path / "out.mp4")] == pytest.approx([0, 0.1, 0.25], abs=1e-4)
    assert list(tmp_path.iterdir()) == [tmp_path / "out.mp4"]


def test_live_a_frame_that_is_broken_off_takes_no_other_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = VideoWriter._picture

    def interrupted(video: VideoWriter, image: np.ndarray) -> av.VideoFrame:
        if video.frames == 30:
            raise KeyboardInterrupt
        return whole(video, image)

    monkeypatch.setattr(VideoWriter, "_picture", interrupted)
    with pytest.raises(KeyboardInterrupt):
        record(tmp_path / "out.mp4", None, [index / 10 for index in range(40)])
    assert len(list(frames(tmp_path / "out.mp4"))) == 30


def test_a_full_disk_is_told_and_nothing_stays(tmp_path: Path) -> None:
    source = make_video(tmp_path / "source.mp4", "aac")
    with full_disk(50_000), pytest.raises(OSError, match=str(tmp_path / "out.mp4")):
        record(tmp_path / "out.mp4", source, [index / 10 for index in range(200)])
    assert list(tmp_path.iterdir()) == [source]


def test_live_a_full_disk_is_told_and_what_fitted_is_kept(tmp_path: Path) -> None:
    with full_disk(500_000), pytest.raises(OSError, match=str(tmp_path / "out.mp4")):
        record(tmp_path / "out.mp4", None, [index / 10 for index in range(400)])
    found = list(frames(tmp_path / "out.mp4"))
    assert 60 <= len(found) < 400
    assert [frame.time for frame in found] == pytest.approx([index / 10 for index in range(len(found))], abs=1e-4)


def test_a_live_video_that_ends_well_is_an_ordinary_one(tmp_path: Path) -> None:
    record(tmp_path / "out.mp4", None, [index / 10 for index in range(150)])
    assert boxes(tmp_path / "out.mp4").count(b"moov") == 1
    assert b"moof" not in boxes(tmp_path / "out.mp4")
    assert len(list(frames(tmp_path / "out.mp4"))) == 150


def test_frames_of_another_size_are_fitted_and_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with VideoWriter(tmp_path / "out.mp4", None) as video:
        for index, shape in enumerate([(HEIGHT, WIDTH), (HEIGHT, 2 * WIDTH), (4 * HEIGHT, WIDTH), (2, 2)]):
            video.write(np.full((*shape, 3), 200, np.uint8), index / 10)
    bright = [(frame.image > 128).mean() for frame in frames(tmp_path / "out.mp4")]
    assert bright == pytest.approx([1, 0.5, 0.25, HEIGHT / WIDTH], abs=0.05)
    assert caplog.text.count("size changed") == 1


def test_frames_that_are_not_later_are_shown_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    record(tmp_path / "out.mp4", None, [0.0, 0.1, 0.1, 0.05, 0.3])
    assert [frame.time for frame in frames(tmp_path / "out.mp4")] == pytest.approx([0, 0.1, 0.1, 0.1, 0.3], abs=1e-4)
    assert "2 frames were not later" in caplog.text


@pytest.mark.parametrize("live", [True, False])
def test_no_frame_makes_no_video(tmp_path: Path, live: bool) -> None:
    (tmp_path / "out.mp4").write_text("before")
    source = None if live else make_video(tmp_path / "source.mp4", None)
    record(tmp_path / "out.mp4", source, [])
    with pytest.raises(InputError, match="no camera"):
        record(tmp_path / "out.mp4", source, [], InputError("no camera"))
    assert (tmp_path / "out.mp4").read_text() == "before"
    assert len(list(tmp_path.iterdir())) == 2 - live


def test_names_may_be_anything(tmp_path: Path) -> None:
    source = make_video(tmp_path / "source.mp4", "aac").rename(tmp_path / "odd: \udcff\nname é.mp4")
    copied = copy(source, tmp_path / "file:out \udcfe\n%s.mp4")
    assert len(list(frames(copied))) == 2 * RATE
    assert tone_at(copied) == pytest.approx(MOMENT, abs=0.03)


def test_readings_are_drawn(tmp_path: Path) -> None:
    with AnnotatedVideo(tmp_path / "new" / "out.mp4", Overlay(), None) as sink:
        for index in range(3):
            image = np.zeros((400, 600, 3), np.uint8)
            sink.write(Frame("cam:0", image, index, index / 10), Reading("cam:0", 600, 400, (), index, index / 10))
    assert len(list(frames(tmp_path / "new" / "out.mp4"))) == 3


def test_what_cannot_become_a_video_is_told(tmp_path: Path) -> None:
    source = make_video(tmp_path / "source.mp4", None)
    with pytest.raises(InputError, match=r"ends in \.mp4"):
        AnnotatedVideo(tmp_path / "out.avi", Overlay(), None)
    with pytest.raises(InputError, match="another name"):
        AnnotatedVideo(source, Overlay(), tmp_path / "." / "source.mp4")
    with AnnotatedVideo(tmp_path / "out.mp4", Overlay(), None) as sink:
        with pytest.raises(InputError, match=r"one\.png.*folder"):
            sink.write(Frame("one.png", picture(0)), Reading("one.png", WIDTH, HEIGHT, ()))
        sink.write(Frame("cam:0", picture(0), 0, 0.0), Reading("cam:0", WIDTH, HEIGHT, ()))
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        record(tmp_path / "file" / "out.mp4", None, [0.0])
