"""The summary: who was seen when, and with which expressions, can be read off the picture, however long it went on."""

import re
from collections.abc import Iterable, Iterator
from itertools import groupby, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.base.errors import InputError
from pipeline.drawing.overlay import Parts
from pipeline.drawing.palette import COLOURS, rgb
from pipeline.media.frames import Frame
from pipeline.media.sinks.timeline import HOLD, MAX_BINS, MAX_KNOWN, THUMBNAIL, Timeline
from pipeline.media.sinks.timeline_plot import (
    DPI,
    HEADER,
    LEFT,
    LEGEND_ROW,
    MAX_PEOPLE,
    RIGHT,
    ROW,
    WIDTH,
    BinnedTrack,
    Summary,
)
from pipeline.readings import FaceReading, Reading

LABELS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
IMAGE = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
GREY = "#F1F2F5"

Seen = tuple[FaceReading, ...]


def face(label: str, track: int | None = 1, *, sure: bool = True, side: float = 60) -> FaceReading:
    probabilities = {name: 0.7 if name == label else 0.05 for name in LABELS}
    return FaceReading((40, 30, 40 + side, 30 + side), 0.9, {}, probabilities, "found", track, not sure)


def frames(faces: Iterable[Seen], fps: float | None = 10, name: str = "a film.mp4") -> Iterator[tuple[Frame, Reading]]:
    """Frames of a video or, without a rate, images."""
    for index, seen in enumerate(faces):
        time = None if fps is None else index / fps
        frame = Frame(name if fps else f"{index}.png", IMAGE, index, time)
        yield frame, Reading(frame.name, 160, 120, seen, index, time)


def draw(path: Path, written: Iterable[tuple[Frame, Reading]], *, blur: bool = False) -> np.ndarray:
    with Summary(path, Parts(blur=blur)) as summary:
        for frame, reading in written:
            summary.write(frame, reading)
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def plot(drawn: np.ndarray, row: int) -> np.ndarray:
    """The bands of the person in a row."""
    top = HEADER + LEGEND_ROW + row * ROW
    return drawn[
        round((top + 0.36) * DPI) : round((top + ROW - 0.18) * DPI), round(LEFT * DPI) : round((WIDTH - RIGHT) * DPI)
    ]


def share(part: np.ndarray, colour: str) -> float:
    return float((abs(part.astype(int) - rgb(colour)) <= 2).all(axis=2).mean())


def timeline_of(written: Iterable[tuple[Frame, Reading]], unit: str = "time", width: float = 0.125) -> Timeline:
    timeline = Timeline(unit, width)
    for frame, reading in written:
        timeline.add(frame.index if frame.time is None else frame.time, frame, reading, thumbnails=True)
    return timeline


def test_bands_have_the_expressions_colours_where_they_were_seen(tmp_path: Path) -> None:
    drawn = draw(tmp_path / "out.png", frames([(face("happy"),)] * 100 + [(face("sad"),)] * 100))
    bands = plot(drawn, 0)
    half = bands.shape[1] // 2
    first, second = bands[:, : half - 20], bands[:, half + 20 :]
    assert share(first, COLOURS["happy"]) == pytest.approx(0.7, abs=0.04)
    assert share(second, COLOURS["sad"]) == pytest.approx(0.7, abs=0.04)
    assert share(first, COLOURS["sad"]) == pytest.approx(0.05, abs=0.03)


def test_where_a_person_was_not_seen_is_blank(tmp_path: Path) -> None:
    drawn = draw(tmp_path / "out.png", frames([(face("happy"),)] * 50 + [()] * 100 + [(face("happy"),)] * 50))
    bands = plot(drawn, 0)
    quarter = bands.shape[1] // 4
    assert share(bands[5:-5, quarter + 15 : 3 * quarter - 15], GREY) == 1
    assert share(bands[:, : quarter - 15], GREY) < 0.02
    assert share(bands[:, 3 * quarter + 15 :], GREY) < 0.02


def test_what_is_uncertain_looks_different(tmp_path: Path) -> None:
    sure, unsure = (
        plot(draw(tmp_path / "out.png", frames([(face("happy", sure=sure),)] * 100)), 0) for sure in (True, False)
    )
    assert share(sure, COLOURS["happy"]) > 0.6
    assert share(unsure, COLOURS["happy"]) < 0.01
    across = unsure[len(unsure) // 2].astype(int).mean(axis=1)
    assert (np.diff(np.sign(across - across.mean())) != 0).sum() > 50  # hatched


def test_each_person_has_a_row_in_the_order_of_their_coming(tmp_path: Path) -> None:
    one, other = face("angry", 7), face("surprise", 3)
    drawn = draw(tmp_path / "out.png", frames([(one,)] * 20 + [(other, one)] * 80))
    assert share(plot(drawn, 0), COLOURS["angry"]) > 0.6
    assert share(plot(drawn, 1), COLOURS["surprise"]) > 0.5
    assert share(plot(drawn, 1)[:, : drawn.shape[1] // 8], GREY) > 0.9


def test_only_those_seen_longest_have_a_row(tmp_path: Path) -> None:
    def height(people: int) -> int:
        seen = [tuple(face("sad", track) for track in range(1, people + 1) if i < 10 * track) for i in range(150)]
        return draw(tmp_path / "out.png", frames(seen)).shape[0]

    assert height(MAX_PEOPLE) - height(1) == pytest.approx((MAX_PEOPLE - 1) * ROW * DPI, abs=2)
    assert height(MAX_PEOPLE + 5) == height(MAX_PEOPLE)


def test_those_seen_longest_are_the_right_ones(tmp_path: Path) -> None:
    brief = tuple(face("angry", track) for track in range(1, 4))
    long = tuple(face("happy", track) for track in range(4, 4 + MAX_PEOPLE))
    drawn = draw(tmp_path / "out.png", frames([brief] * 10 + [long] * 50))
    assert all(share(plot(drawn, row), COLOURS["happy"]) > 0.4 for row in range(MAX_PEOPLE))
    assert all(share(plot(drawn, row), COLOURS["angry"]) < 0.1 for row in range(MAX_PEOPLE))


@pytest.mark.parametrize(("suffix", "start"), [(".png", b"\x89PNG"), (".pdf", b"%PDF"), (".SVG", b"<?xml")])
def test_the_suffix_says_the_format(tmp_path: Path, suffix: str, start: bytes) -> None:
    with Summary(tmp_path / f"out{suffix}", Parts()) as summary:
        for frame, reading in frames([(face("happy"),)] * 20):
            summary.write(frame, reading)
    assert (tmp_path / f"out{suffix}").read_bytes().startswith(start)
    with pytest.raises(InputError, match="a plot is written as"):
        Summary(tmp_path / "out.jpg", Parts())


def test_images_are_named(tmp_path: Path) -> None:
    names = ("a.png", "beach at noon.jpg", "c.png")
    with Summary(tmp_path / "out.svg", Parts()) as summary:
        for index, name in enumerate(names):
            frame = Frame(f"/photos/{name}", IMAGE, index)
            summary.write(frame, Reading(frame.name, 160, 120, (face("happy", None),), index))
    drawn = (tmp_path / "out.svg").read_text()
    assert all(f"<!-- {name} -->" in drawn for name in names)


def test_a_low_frame_rate_is_no_gap() -> None:
    timeline = timeline_of(frames([(face("happy"),)] * 6, fps=0.1))
    spans = timeline.spans()
    assert [end - begin for begin, end in list(spans.values())[:-1]] == pytest.approx([10] * 5, abs=0.2)


def test_images_have_one_row_of_the_mean_of_their_faces(tmp_path: Path) -> None:
    seen = [(face("happy", None), face("sad", None)), (), (face("angry", None),), (face("angry", None),)]
    drawn = draw(tmp_path / "out.png", frames(seen, fps=None))
    columns = np.array_split(plot(drawn, 0), 4, axis=1)
    assert share(columns[0], COLOURS["happy"]) == pytest.approx(0.375, abs=0.03)
    assert share(columns[0], COLOURS["sad"]) == pytest.approx(0.375, abs=0.03)
    assert share(columns[1][5:-5, 5:-5], GREY) == 1
    assert share(columns[2], COLOURS["angry"]) == pytest.approx(0.7, abs=0.03)


def test_tracks_of_two_videos_are_two_people(tmp_path: Path) -> None:
    both = [*frames([(face("happy"),)] * 50, name="a.mp4"), *frames([(face("sad"),)] * 50, name="b.mp4")]
    drawn = draw(tmp_path / "out.png", both)
    assert {share(plot(drawn, row), COLOURS["happy"]) > 0.6 for row in (0, 1)} == {True, False}
    assert {share(plot(drawn, row), COLOURS["sad"]) > 0.6 for row in (0, 1)} == {True, False}


def test_videos_and_images_may_come_together(tmp_path: Path) -> None:
    both = [*frames([(face("happy"),)] * 50), *frames([(face("sad", None),)] * 3, fps=None)]
    alone = draw(tmp_path / "out.png", frames([(face("happy"),)] * 50))
    drawn = draw(tmp_path / "out.png", both)
    assert drawn.shape[0] > alone.shape[0] + ROW * DPI
    assert share(plot(drawn, 0), COLOURS["happy"]) > 0.6


def test_a_face_is_shown_unless_faces_are_hidden(tmp_path: Path) -> None:
    def left(*, blur: bool) -> np.ndarray:
        drawn = draw(tmp_path / "out.png", frames([(face("happy"),)] * 20), blur=blur)
        top = HEADER + LEGEND_ROW
        return drawn[round(top * DPI) : round((top + ROW) * DPI), : round(1.2 * DPI)]

    shown, hidden = left(blur=False), left(blur=True)
    colours_of_noise = [len(np.unique(part.reshape(-1, 3) // 16, axis=0)) for part in (shown, hidden)]
    assert colours_of_noise[0] > 3 * colours_of_noise[1]
    assert share(hidden, "#FFE552") > 0.1  # the emoji's yellow


def test_the_thumbnail_is_of_the_largest_face_and_within_the_frame() -> None:
    sides = (10, 60, 30, 500, 80)
    timeline = timeline_of(frames([(face("happy", side=side),) for side in sides]))
    person = timeline.people["a film.mp4", 1]
    assert person.area == 500 * 500
    assert person.thumbnail is not None
    assert person.thumbnail.shape == (THUMBNAIL, THUMBNAIL, 3)
    empty = timeline_of(frames([(face("happy", side=0),)])).people["a film.mp4", 1]
    assert empty.thumbnail is None


@pytest.mark.parametrize("count", [0, 1])
@pytest.mark.parametrize("fps", [25, None])
def test_little_to_show_is_still_a_picture(tmp_path: Path, count: int, fps: float | None) -> None:
    assert draw(tmp_path / "out.png", frames([()] * count, fps)).size
    assert draw(tmp_path / "out.png", frames([(face("sad", 1 if fps else None),)] * count, fps)).size


@pytest.mark.parametrize("name", ["$x_1$ and ^2$.mp4", "two\nlines.mp4", "嬉しい.mp4", "\udcff.mp4", "x" * 500])
@pytest.mark.filterwarnings("error")
def test_names_of_any_kind_are_drawn(tmp_path: Path, name: str) -> None:
    label = FaceReading((0, 0, 50, 50), 0.9, {}, {name: 0.6, "sad": 0.4}, "found", 1)
    both = [*frames([(label,)] * 5, name=name), *frames([(label,)] * 5, name="b.mp4")]
    assert draw(tmp_path / "out.png", both).size


@pytest.mark.parametrize(("count", "name"), [(8, "happiness"), (30, "an expression"), (3, "x" * 40)])
def test_labels_do_not_run_into_one_another(tmp_path: Path, count: int, name: str) -> None:
    labels = [f"{name} {number}" for number in range(count)]
    seen = FaceReading((0, 0, 50, 50), 0.9, {}, dict.fromkeys(labels, 1 / count), "found", 1)
    drawn = draw(tmp_path / "out.png", frames([(seen,)] * 5))
    top = round(HEADER * DPI)
    row = drawn[top : top + round(0.24 * DPI), round(LEFT * DPI) : round((WIDTH - RIGHT) * DPI)]
    blank = (row == 255).all(axis=(0, 2))
    gaps = [sum(1 for _ in group) for is_blank, group in groupby(blank.tolist()) if is_blank]
    assert sum(width >= 0.08 * DPI for width in gaps) >= min(count, 3)
    assert (drawn[:, round((WIDTH - RIGHT) * DPI) + 1 :][: round((HEADER + 0.3) * DPI)] == 255).all()


def test_an_image_stands_under_its_own_number(tmp_path: Path) -> None:
    with Summary(tmp_path / "out.svg", Parts()) as summary:
        for index in range(MAX_BINS + 700):
            frame = Frame(f"{index + 1}.png", IMAGE, index)
            summary.write(frame, Reading(frame.name, 160, 120, (face("happy", None),), index))
    drawn = (tmp_path / "out.svg").read_text()
    names = re.findall(r"<!-- (\d+)\.png -->", drawn)
    assert len(names) > 5
    assert names == re.findall(r"<!-- (\d+) -->", drawn)[: len(names)]


def test_an_error_leaves_no_picture(tmp_path: Path) -> None:
    def until_the_camera_is_lost() -> Iterator[tuple[Frame, Reading]]:
        yield from frames([(face("happy"),)] * 5)
        raise RuntimeError("camera lost")

    with pytest.raises(RuntimeError, match="lost"):
        draw(tmp_path / "out.png", until_the_camera_is_lost())
    assert not list(tmp_path.iterdir())


def test_half_an_hour_at_sixty_frames_a_second_takes_no_more_room_than_a_minute() -> None:
    timeline = Timeline("time", 0.125)
    frame, reading = next(frames([(face("happy"), face("sad", 2))]))
    for index in range(0, 30 * 60 * 60, 6):
        timeline.add(index / 60, frame, reading, thumbnails=False)
    assert len(timeline.frames) <= MAX_BINS
    assert all(len(person.bins) <= MAX_BINS for person in timeline.people.values())
    assert sum(timeline.frames.values()) == 30 * 60 * 10
    assert [person.readings for person in timeline.people.values()] == [30 * 60 * 10] * 2
    track = BinnedTrack.of(timeline, ("a film.mp4", 2))
    assert track.spans[0, 0] == 0
    assert track.seconds == track.spans[-1, 1] == pytest.approx(1800, abs=2 * timeline.width)
    np.testing.assert_allclose(track.means[:, LABELS.index("sad")], 0.7)


def test_people_without_end_are_counted_and_those_seen_longest_kept() -> None:
    resident = face("happy", 0)
    seen = [(resident, face("sad", index // 3 + 1)) for index in range(9 * MAX_KNOWN)]
    timeline = timeline_of(frames(seen))
    assert len(timeline.people) <= MAX_KNOWN
    assert len(timeline.people) + timeline.forgotten == 3 * MAX_KNOWN + 1
    assert timeline.people["a film.mp4", 0].readings == len(seen)


def test_a_low_frame_rate_is_no_gap_but_a_stream_that_stopped_is() -> None:
    slow = BinnedTrack.of(timeline_of(frames([(face("happy"),)] * 10, fps=1)), ("a film.mp4", 1))
    assert list(slow.runs()) == [slice(0, 10)]
    first, second = ([*frames([(face("happy"),)] * 10)] for _ in range(2))
    later = [(Frame(f.name, f.image, f.index, f.time + 60), reading) for f, reading in second if f.time is not None]
    stopped = BinnedTrack.of(timeline_of([*first, *later]), ("a film.mp4", 1))
    assert len(list(stopped.runs())) == 2
    assert stopped.seconds < 2 + HOLD + 1


@given(
    times=st.lists(st.floats(0, 1e6), min_size=1, max_size=50).map(sorted),
    tracks=st.lists(st.integers(1, 4), min_size=1, max_size=50),
)
def test_nothing_is_lost_at_any_times(times: list[float], tracks: list[int]) -> None:
    timeline = Timeline("time", 0.125)
    for index, (time, track) in enumerate(zip(times, tracks, strict=False)):
        frame = Frame("film", IMAGE, index, time)
        timeline.add(time, frame, Reading("film", 160, 120, (face("happy", track),)), thumbnails=False)
    count = min(len(times), len(tracks))
    assert sum(timeline.frames.values()) == count
    assert sum(person.readings for person in timeline.people.values()) == count
    spans = list(timeline.spans().values())
    assert all(begin < end for begin, end in spans)
    assert all(one[1] <= other[0] for one, other in pairwise(spans))
    for key in timeline.people:
        binned = BinnedTrack.of(timeline, key)
        assert binned.seconds > 0
        np.testing.assert_allclose(binned.means.sum(axis=1), 1)
        assert sum(run.stop - run.start for run in binned.runs()) == len(binned.spans)
